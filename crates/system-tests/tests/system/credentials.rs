//! Who is let in with what: the test vectors of the contract, each refusal with its words, and the rule for `root`.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::http::Answer;
use system_tests::process;
use system_tests::secrets::remember_secret;
use system_tests::system::{System, TOKEN, eventually};
use system_tests::units_tokens::{SECRET, basic, mint, unit};

const HOST: (&str, &str) = ("Host", "cell1.unit1.example");
const REALM: &str = "Bearer realm=\"https://cell1.unit1.example/\"";

// The vectors of the contract, and beside them more that the same independent code wrote: issued at 1700000000000 for a
// hundred years, or for an hour where the name says so.
const ME: &str =
    "AR~-LkQm22g006pTA-Btjn_JSggw9-w3PLXDkTqLPKAGHe3DvMNGeD6VipnPrX_e-SIEITFQucLVePBFRsNhwWt_X1DnSeAAW2ziUAS8DlwZos";
const ME_EXPIRED: &str = "AR~-LkQm22g006pTA-Btjn_JaOWL5B6BxcMSyDhR0cnHzVgVk78ttX_Lb009wOmdYC9ESoNsN5Q_k6_ZQm8YJZdTA";
/// For `message box1`.
const ME_UNSCOPED: &str =
    "AR~-LkQm22g006pTA-Btjn_JSggw9-w3PLXDkTqLPKAGHfAPlutU2wABVPOv_Wmd2N62gP7ZaiZCTD11jWveBVUy3DfIK2a0T_tQMHGs5v8xBY";
const TARO: &str =
    "AR~-LkQm22g006pTA-Btjn_JQLwdpapEpzq5v7uZ2B5MWIfijlxBfkBWX8SiYBaIk3g5vcQhpc5tJekhTJ3VCh5_vbTF9J13PhuTC00qxdMhdw";
/// No such account.
const NOBODY: &str =
    "AR~-LkQm22g006pTA-Btjn_JZuOPj-qs1ZLUFjxyJm-2PjN7UWs5XNPRVhMNijue4Qf0yZnKn2Z1nLHjM-iMvXRW7TbW-W0_Wog9nrGJuOmALw";
/// Issued by `cell2` of the unit.
const ME_AT_CELL2: &str =
    "AR~RRLhVErcP5gAhSyk13cUpakxOSI29sDJMoDUdSVWx9Cck9zJihmlOqRw6CP1IMDKuJ_EFAo2dVM_N97Mm3s1-s8QlDYPzPj3EITp8vogWAc";
/// Under the secret of another unit.
const ME_OTHER_KEY: &str =
    "AR~qxr7MdC-NbmRJO1oIndThnztCWvZdesb4BlbtR5NYD1FxddqwnAw62UE8Ztp3XEAWpql7wHGZb-fzKQTGJWWzYGnFcU8UBHxh5C955PXyNg";
/// With the roles `__/admin` and `box1/operator`.
const BOB: &str = "AV~ggHcxFhDf0nLGFoO5-l4hw-jPEa20N-FqIGer9w80qWbO3KA3yl3z2C6GVN_zdpom0zlZp9EFs7NZJ5bGPPnJz_iXtLoJpfGPM1OecoyHqaEKR4CSeTwQHOFw3HXODT6E1N_sqTeY3Sy0myXoQd8rLUKxPHuO8qmtJCSBA8MlacDTsY8K-sIufgB7oXXWT0bv2SfSAAR2rXIU4Sx2D80MlkqFE_EAKCOdRKRbTU0sR1J4lRWwsVVGUy5BCsthpiaQEgbYS2bdWL1IXsaUejC4ZzQodtVP5l1q_PjDoSVkqvnqYKn3JWaKhd3nVsbo7DJN8DNRMrLE7e0LWSgalXeoPI82A975mgAU5O9eMyNz-w";
const BOB_WITHOUT_ROLES: &str = "AV~ggHcxFhDf0nLGFoO5-l4hw-jPEa20N-FqIGer9w80qWbO3KA3yl3z2C6GVN_zdpozsFS4HnAUNoDvkbDkEx6oWHH_YeOx7wh4U_IOWerRdyLjtRKNgk6DIfBYN2FHR3ALRrrHEDpuBi78jDjNhy-eA";
/// With the role `__/admin`, for nothing.
const BOB_UNSCOPED: &str = "AV~ggHcxFhDf0nLGFoO5-l4hw-jPEa20N-FqIGer9w80qWbO3KA3yl3z2C6GVN_zdpozsFS4HnAUNoDvkbDkEx6oTzASVCqydL0IsqdeB6cjPO2tGmkHw4SS_gXFGihxfqkK0S9rYMkdMNuwaXeugVH8O381PZ82B7Z2CoOF59qhxcpkKtU5LeMdKzIzocn_PU8";
const BOB_EXPIRED: &str = "AV~ggHcxFhDf0nLGFoO5-l4h18XnF9-cWvSrA3z5E4ZaPqh3WfKNAiOw4en4V2M-3GPxSw30Da8rqElJORRHlUuKBlnKrHlmqpOhPeqQhrZqf6iQprwA_iGQ7hh9g2COx5Dz6c4Dlkx_AAUhpHWc7nc3jU_tpi4zIoE5dr6Gfs6_nqxoGFvm84GsVhOFky3009I";
const OWNER: &str = "AU~IJY37S55ElZNMUWoazlK2FZ6zRKk4jSIkcE4eGEM1GkMiFLzQ_ic2s0nRtbjDvnzrPG_xQw0YNtg5ccNG-x98mfH9XDPATyszryv6IYyIyNH_Trmqu94mFve5dwBl08Q";
const OWNER_EXPIRED: &str = "AU~IJY37S55ElZNMUWoazlK2PFEGPrkl940u4Or8st0_N5zVRgu4Js50ROKFHD1DFg8QUe_5PRSB5wyzM4Xm4LH271cTGR1DglVpurMAX5iSlBkniNAbkqARry8voa8-QuI";
const PASSWORD_CHANGE: &str =
    "AP~nQSjRMn5msV2HeG8oiekUV0ZdTsNwrkeFdBQC7eG2wL4e3btUE4_3S4o5C6yK35wi7D5KF-KLUSn6ymMaeyufyw8EOWa8OW2owiIqRtuY2Y";
const PASSWORD_CHANGE_EXPIRED: &str =
    "AP~nQSjRMn5msV2HeG8oiekURQHzUDlM4slqJZghwPwbuA17kGtSMPFfP7N2KeqH5_ExSNhbBGAFsdh5WZwEikDOg";
const REFRESH: &str =
    "RR~fyRcjbV1TW0z3zaO1SeD7ytSZPlttqH3zk4vc9fkWNzMA5iAYaXdT0A19J6baUM5-3C8T_MIGZ4uG-RWRF27ZvC8HU5pIrI-hclEBqc52gE";
const REFRESH_EXPIRED: &str =
    "RR~fyRcjbV1TW0z3zaO1SeD7x-v1rNO2q8MV5UtR26ObgWI2CVcrwj_LdLMh2wPcZf4uX6lDB0J54RF5W65JbIaHQ";
const BOBS_REFRESH: &str = "RV~xKqYO8mlrjL8vJmmboeNVpOlPUIZ2aX3iE2qylX_vGnP4fnTqiP1Aqne28KGj1iy9GTPgIZTqlew9-0lCKh0nBgsBtAGA7rNyewNXu728Y2co2EIAsWnTj3tmSuKe_rtxXCv0y-_XB2D4eupVW0ZoPchFfdB3C_oGxj9bula-2rzxrLjoH4jYkfbYnUWciJSVqRIHej1Di7uPDBTBECmNYooTTlppXLww8NesYaguAIREajSgTyO9cNPM5op7_YPHWpd_B-Fu0k8RMrzgTRsuA";
const GRANT_CODE: &str =
    "GC~oz8_2fpEKN-hE_xvHWmBmb0-DEoi3xQSoJV1x6IWEZAMf9WPO7kryLdF0ksGzOZSDDGup-5SyuoHJUSxjVUcScQhiUSjbZIIoJwI4PgJe00";
const GRANT_CODE_EXPIRED: &str =
    "GC~oz8_2fpEKN-hE_xvHWmBmbxfIKqOJ9CdalCKoJP7TKZbzVlDxmqJpDVSjLc4Mm_Aq6Vwfqs3C4c0PqertzsGFg";
/// An unsigned assertion.
const OF_ANOTHER_UNIT: &str = "PEFzc2VydGlvbiB4bWxucz0idXJuOm9hc2lzOm5hbWVzOnRjOlNBTUw6Mi4wOmFzc2VydGlvbiIgSUQ9Il8xIiBWZXJzaW9uPSIyLjAiPjxJc3N1ZXI-aHR0cHM6Ly9vdGhlci51bml0Mi5leGFtcGxlLzwvSXNzdWVyPjwvQXNzZXJ0aW9uPg";

const OLD_ME: &str = "AA~hVTfxdkDRZd2KB65VNOgissfxQ1SVGDAkTGhQI13oqiFgal5FW_rAVf7n-yWiq4tk4RvH7bLXK8_WrRhIVsz9w";
const OLD_ME_EXPIRED: &str =
    "AA~YV026Q3Dq9T6-e7Lfsb23dmHWzZfnGy6ZySzGsah6tLYaL1lVycQ6ZajMc6NTBculCTUT90aFQxvo566j3ts8w";
const OLD_BOB: &str = "AL~hVTfxdkDRZd2KB65VNOgiqlJWRHIJl_jWF-DXy4d69R_t3xYi_4ZKnbu3gT4gExCT2RFJrNZyuBXy2N50wmfCoKWUYMcjaRI_LQFgmAF2AgYta6TiBwPxhyThs26RmWt9T-FCDyzwDQAK8XS6BxwNC5AMEXpBk1SMrPSZd5jPfpucD3CQDTsqw5MQ2V-XPWD";
const OLD_OWNER: &str =
    "AU~T0qvvfGJe-DPvE_DgHz-SnRQc-v1Mqet3jefjM7_Cvsma65r4uCRSKc6x-wigF7dmSJPHZVsiPdwT5GK7AKrJWjp45YJxWNuRi3hW5T3Dz4";
/// As versions 1.7.18 to 1.7.20 wrote it.
const ME_OLD_VECTOR: &str =
    "AR~xHbWIDYFl_DPOurWtRdodh2T6XaIoaLmAzKAyZ3_pTiCP9sX6dyFk1KK-VDPFKoC41JF4wT3ii-eTlPK1wI-nC1hp7Nw8pksJzy0inUr6mA";

const PEER: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
/// With [`ME`] in it.
const COOKIE: &str = "1wb2-mQ03cDH_Re3IJr4TU2NJ8FocPofg-RJTT8tghhtStoaI8xTGPEz-DLjiXXVe4--4FawMvu2mn3605T16dq_LgKPujPGZSR1z3EDwBKa48CmyCw56cICIKkw6-tzxKujUvUHnBbMIPM0gn_3BzXerBKYJJVYmKBb4e8qSJJFrsruwFkZ_8sKE98fLhIt6fbRmv53KGA0o_X5YkD1zg";
const COOKIE_EXPIRED: &str = "1wb2-mQ03cDH_Re3IJr4TU2NJ8FocPofg-RJTT8tghhtStoaI8xTGPEz-DLjiXXV3Fi_2VU4krIleEs6LtuXOCM21nT5m0sH-znkAU9iT6affuaVcIBEsG-xAo3dd5rVjscrVm7aJG7gzxVa-NsO_O6BFJy0dLKDYd6K5-wYqu8";
const COOKIE_REFRESH: &str = "1wb2-mQ03cDH_Re3IJr4TU2NJ8FocPofg-RJTT8tghg3qM0fGvYCEm2iskp4ch2GzhK7IFu57LVwrJq_sZ9ejU3466maeN3mC25xDXI362alhX8K6qGu5zzSfIlc9848G-Xl1RuAq04psYxYm3UMGkxwsZgn4QUnRAgZq0EgrPZ_DNIbX0u3LXLvdkdFa_Q2zB1vCD3P_c6PdqmHzFscOg";
/// For this host, with the token of `cell2`.
const COOKIE_AT_CELL2: &str = "1wb2-mQ03cDH_Re3IJr4TU2NJ8FocPofg-RJTT8tghigJD27xp73h-iKl3XlyxMjdVC01xS_eRvSiGvOt7Tk0qCz0pA2q8FM3WdFActnSKUOhgnv3NhkJ4aEsKMwvmA3GSYWk2-y_L5GSKsqvp6Cf4QfpFXOW1uvdJkYkf6OhMEGA2-6u8FOSB1HjiTMrL8ZMyRWWEUKY-TGIdZj2pWjSw";
const COOKIE_WITHOUT_TAB: &str = "-p_Mx-dtOJlUWFBs06gfmw";

const PASSWORD: &str = "Right password 7KqX";
/// Of the password, as a unit stores it: N, r and p are 2^14, 8 and 1.
const SCRYPT: &str = "$e0801$AAECAwQFBgcICQoLDA0ODw==$d/xZBhMqWJ+2JyYBve97QC/4iId9OIUi1ApVJC0zVgE=";
/// Of the password and the unit's salt.
const SHA256: &str = "2dbe3c4c468ec2f56ba36d1d2162e1c76cc6e808e32cd63bc9615d6159f88caa";

/// A unit with the cell that the vectors are for. Its ACL gives `root` to the role `__/admin`, which `me` has; there is a
/// role `box1/operator`, which nobody has.
fn system(settings: &[(&'static str, &str)]) -> System {
    for secret in [ME, BOB, OLD_ME, OLD_BOB, COOKIE, PEER, PASSWORD, SCRYPT, SHA256] {
        remember_secret(secret);
    }
    let system = System::start_with(unit(false, settings));
    system.sample_cell("cell1", &[]);
    edit(&system, "Box", "diary", "s,Name", &json!("box1"));
    edit(&system, "Role", "reader", "s,Name", &json!("operator"));
    for (account, algorithm, hash) in [("me", "scrypt", SCRYPT), ("taro", "sha-256", SHA256)] {
        edit(&system, "Account", account, "h", &json!({"HashAlgorithm": algorithm, "HashedCredential": hash}));
    }
    system.execute("CREATE TABLE first_document AS TABLE document");
    system.execute("CREATE TABLE first_node AS TABLE node");
    system
}

/// Undoes what was done to the cell.
fn undo(system: &System) {
    for table in ["document", "node"] {
        system.execute(&format!("DELETE FROM {table}"));
        system.execute(&format!("INSERT INTO {table} SELECT * FROM first_{table}"));
    }
}

/// Waits until nothing is remembered of the cell as it was.
fn forget() {
    sleep(Duration::from_millis(70));
}

/// Which rows are those of an entity that the cell holds.
fn is(of: &str, name: &str) -> String {
    format!(
        "type = '{of}' AND body::jsonb #>> '{{_source,s,Name}}' = '{name}'
         AND generation IN (SELECT generation FROM cell)"
    )
}

/// Changes a field of an entity.
fn edit(system: &System, of: &str, name: &str, field: &str, value: &Value) {
    let changed = system.execute(&format!(
        "UPDATE document SET body = jsonb_set(body::jsonb, '{{_source,{field}}}', '{value}')::text WHERE {}",
        is(of, name)
    ));
    assert_eq!(changed, 1, "{of} {name}");
}

fn remove(system: &System, of: &str, name: &str) {
    let removed = system.execute(&format!("DELETE FROM document WHERE {}", is(of, name)));
    assert_eq!(removed, 1, "{of} {name}");
}

fn id(system: &System, of: &str, name: &str) -> String {
    system.value(&format!("SELECT id FROM document WHERE {}", is(of, name)))
}

/// Gives the account `me` this role in place of its own.
fn link(system: &System, role: &str) {
    let role = id(system, "Role", role);
    let changed = system.execute(&format!(
        "UPDATE document SET body = jsonb_set(body::jsonb, '{{_source,k2}}', '\"{role}\"')::text
         WHERE type = 'link' AND body::jsonb #>> '{{_source,t1}}' = 'Account'"
    ));
    assert_eq!(changed, 1);
}

/// Sets the `a` of the root's `.pmeta`.
fn set_acl(system: &System, acl: &Value) {
    let set = format!("UPDATE node SET pmeta = jsonb_set(pmeta::jsonb, '{{a}}', '{acl}')::text WHERE path = ''");
    assert_eq!(system.execute(&set), 1);
}

fn ace(principal: &Value, privileges: &Value) -> Value {
    json!({"D.ace": [{"D.principal": principal, "D.grant": {"D.privilege": privileges}}]})
}

/// An ACL that gives `root` to a role.
fn root_for(system: &System, role: &str) -> Value {
    ace(&json!({"D.href": id(system, "Role", role)}), &json!([{"p.root": {}}]))
}

/// Asks the cell with a credential: nothing, a token, or a whole value of `Authorization`.
fn ask(system: &System, credential: &str) -> Answer {
    let bearer = bearer(credential);
    let authorization = if credential.contains(' ') { credential } else { &bearer };
    let headers = if credential.is_empty() { vec![HOST] } else { vec![HOST, ("Authorization", authorization)] };
    system.anonymous("GET", "/__export", &headers, None)
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The code of an error, or else the status.
fn seen(answer: &Answer) -> String {
    let code = answer.code();
    if code.is_empty() { answer.status.to_string() } else { code }
}

/// The words of each refusal.
const WORDS: [(&str, &str); 12] = [
    ("PR401-AU-0001", "Authorization required."),
    ("PR401-AU-0002", "Access token expired."),
    ("PR401-AU-0003", "Invalid authentication scheme."),
    ("PR401-AU-0004", "Basic auth format error."),
    ("PR401-AU-0006", "Token parse error."),
    ("PR401-AU-0007", "Can not access with refresh token."),
    ("PR401-AU-0008", "Token dsig error."),
    ("PR401-AU-0009", "Authentication failed."),
    ("PR401-AU-0010", "Authentication failed."),
    ("PR401-AU-0011", "Authentication failed."),
    ("PR403-AU-0002", "Necessary privilege is lacking."),
    ("PR403-AU-0007", "Insufficient scope is granted for the access token. [root] Privilege is required."),
];

/// A refusal has its status, its words, one challenge if it is a 401 and none if it is not.
fn assert_refused(answer: &Answer, code: &str, case: &str) {
    let challenge = if code.starts_with("PR401") { vec![REALM] } else { vec![] };
    let challenges: Vec<&str> =
        answer.headers.iter().filter(|(name, _)| name == "www-authenticate").map(|(_, v)| v.as_str()).collect();
    assert_eq!((answer.status.to_string().as_str(), challenges), (&code[2..5], challenge), "{case}");
    if case.starts_with("HEAD") {
        return assert!(answer.body.is_empty(), "{case}");
    }
    let words = WORDS.iter().find(|(c, _)| *c == code).unwrap().1;
    let document = json!({"code": code, "message": {"lang": "en", "value": words}});
    assert_eq!(serde_json::from_slice::<Value>(&answer.body).unwrap(), document, "{case}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{case}");
}

#[test]
fn the_vectors_of_the_contract_open_what_they_should() {
    for legacy in [false, true] {
        let system = system(&[("LEGACY_TOKENS", if legacy { "true" } else { "false" }), ("RUST_LOG", "debug")]);
        for (token, today, with_legacy) in [
            (ME, "200", "200"),
            (ME_EXPIRED, "PR401-AU-0002", "PR401-AU-0002"),
            (BOB, "200", "200"),
            (BOB_WITHOUT_ROLES, "PR403-AU-0002", "PR403-AU-0002"),
            (OWNER, "PR403-AU-0002", "PR403-AU-0002"),
            (PASSWORD_CHANGE, "PR403-AU-0002", "PR403-AU-0002"),
            (REFRESH, "PR401-AU-0007", "PR401-AU-0007"),
            (BOBS_REFRESH, "PR401-AU-0007", "PR401-AU-0007"),
            (OLD_ME, "PR401-AU-0006", "200"),
            (OLD_BOB, "PR401-AU-0006", "200"),
            (OLD_OWNER, "PR401-AU-0006", "PR403-AU-0002"),
            (OLD_ME_EXPIRED, "PR401-AU-0006", "PR401-AU-0002"),
            (ME_OLD_VECTOR, "PR401-AU-0006", "200"),
            ("RA~x", "PR401-AU-0006", "PR401-AU-0007"),
            ("RT~x", "PR401-AU-0006", "PR401-AU-0007"),
        ] {
            let expected = if legacy { with_legacy } else { today };
            assert_eq!(seen(&ask(&system, token)), expected, "{token}, legacy: {legacy}");
        }
        let cookie = format!("p_cookie={COOKIE}");
        let answer = system.anonymous("GET", &with_peer(PEER), &[HOST, ("Cookie", &cookie)], None);
        assert_eq!(answer.text(), r#"{"status":"ready"}"#);
    }
}

fn with_peer(peer: &str) -> String {
    format!("/__export?p_cookie_peer={peer}")
}

/// All resources of a cell, each with what would be done if it were allowed.
const RESOURCES: [(&str, &str, Option<&[u8]>); 19] = [
    ("GET", "/__export", None),
    ("HEAD", "/__export", None),
    ("POST", "/__export", Some(br#"{"Name":"new"}"#)),
    ("OPTIONS", "/__export", None),
    ("GET", "/__import", None),
    ("POST", "/__import", Some(br#"{"Name":"one"}"#)),
    ("GET", "/__import/dry-run", None),
    ("POST", "/__import/dry-run", Some(br#"{"Name":"one"}"#)),
    ("PROPFIND", "/__snapshot", None),
    ("OPTIONS", "/__snapshot", None),
    ("GET", "/__snapshot/one.zip", None),
    ("HEAD", "/__snapshot/one.zip", None),
    ("PROPFIND", "/__snapshot/one.zip", None),
    ("OPTIONS", "/__snapshot/one.zip", None),
    ("PUT", "/__snapshot/one.zip", Some(b"x")),
    ("DELETE", "/__snapshot/one.zip", None),
    ("GET", "/__snapshot/none.zip", None),
    ("PUT", "/__snapshot/none.zip", Some(b"x")),
    ("OPTIONS", "/__snapshot/none.zip", None),
];

/// Uploads the snapshot `one`, so that everything would work.
fn put_one(system: &System) {
    let one = std::fs::read(system.sample(&["--name", "cell1"])).unwrap();
    assert_eq!(system.request("PUT", "/__snapshot/one.zip", &[HOST], Some(&one)).status, 201);
}

/// What stands in the area, and what was ordered.
fn done(system: &System) -> String {
    system.value("SELECT (SELECT string_agg(s::text, ' ') FROM snapshot_entry s) || (SELECT count(*) FROM job)")
}

/// Asks every resource with a credential, and expects the same refusal of all of them.
fn assert_all_refuse(system: &System, headers: &[(&str, &str)], query: &str, code: &str) {
    let headers = [&[HOST], headers].concat();
    for (method, target, body) in RESOURCES {
        let answer = system.anonymous(method, &format!("{target}{query}"), &headers, body);
        let case = format!("{method} {target}{query} {headers:?}");
        if method == "OPTIONS" && !headers.iter().any(|(name, _)| *name == "Authorization") {
            // What browsers send before they send anything else.
            assert_eq!(answer.status, 200, "{case}");
        } else {
            assert_refused(&answer, code, &case);
        }
    }
}

#[test]
fn every_refusal_has_its_words_and_its_challenge() {
    let system = system(&[]);
    put_one(&system);
    let before = done(&system);
    for (code, values) in [
        ("PR401-AU-0001", vec![bearer(NOBODY)]),
        ("PR401-AU-0002", [ME_EXPIRED, BOB_EXPIRED, OWNER_EXPIRED, PASSWORD_CHANGE_EXPIRED].map(bearer).into()),
        ("PR401-AU-0002", vec![bearer(GRANT_CODE_EXPIRED)]),
        ("PR401-AU-0003", ["", ME, "Digest x"].map(str::to_owned).into()),
        ("PR401-AU-0003", vec![bearer(ME).replace('B', "b"), bearer(ME).to_uppercase(), "basic bWU6eA==".to_owned()]),
        ("PR401-AU-0004", ["Basic", "Basic !", "Basic bm9jb2xvbg==", "Basic bWU6eA==, x"].map(str::to_owned).into()),
        ("PR401-AU-0006", ["Bearer".to_owned(), bearer("x"), bearer("a.b.c"), bearer(&"x".repeat(33 << 10))].into()),
        ("PR401-AU-0006", [ME_AT_CELL2, ME_OTHER_KEY, GRANT_CODE, OLD_ME, &ME[..60]].map(bearer).into()),
        ("PR401-AU-0006", vec![bearer(&PASSWORD_CHANGE.replace("AP~", "AR~")), bearer(&format!("{TOKEN}x"))]),
        ("PR401-AU-0007", [REFRESH, REFRESH_EXPIRED, BOBS_REFRESH].map(bearer).into()),
        ("PR401-AU-0008", vec![bearer(OF_ANOTHER_UNIT)]),
        ("PR403-AU-0002", [TARO, BOB_WITHOUT_ROLES, OWNER, PASSWORD_CHANGE].map(bearer).into()),
        ("PR403-AU-0007", [ME_UNSCOPED, BOB_UNSCOPED].map(bearer).into()),
    ] {
        for value in values {
            assert_all_refuse(&system, &[("Authorization", &value)], "", code);
        }
    }
    let cookie = format!("p_cookie={COOKIE}");
    let master = bearer(TOKEN);
    let unit_user = [("Authorization", master.as_str()), ("X-Personium-Unit-User", "https://u.example/#me")];
    assert_all_refuse(&system, &[], "", "PR401-AU-0001");
    assert_all_refuse(&system, &[("Cookie", &cookie)], "", "PR401-AU-0001");
    assert_all_refuse(&system, &[("Cookie", &cookie)], "?p_cookie_peer=x", "PR401-AU-0009");
    assert_all_refuse(&system, &unit_user, "", "PR403-AU-0002");
    let other_header = [HOST, ("X-Personium-UnitUser", "https://u.example/#me")];
    assert_eq!(system.request("GET", "/__export", &other_header, None).status, 200);
    assert_eq!(done(&system), before);
    // None of them is refused for another reason.
    for (method, target, body) in RESOURCES {
        let answer = system.anonymous(method, target, &[HOST, ("Authorization", &bearer(ME))], body);
        assert!(![401, 403].contains(&answer.status), "{method} {target}: {}", answer.text());
    }
    assert_ne!(done(&system), before);
}

#[test]
fn passwords_are_told_right_or_wrong_and_open_nothing() {
    let system = system(&[("RUST_LOG", "debug")]);
    put_one(&system);
    let before = done(&system);
    assert_all_refuse(&system, &[("Authorization", &basic("me", PASSWORD))], "", "PR401-AU-0001");
    for right in [basic("taro", PASSWORD), basic("%6de", "Right+p%61ssword%207KqX")] {
        assert_eq!(seen(&ask(&system, &right)), "PR401-AU-0001", "{right}");
    }
    let joined = basic("me", PASSWORD).replace("Basic ", "Basic");
    let answer = system.anonymous("GET", "/__export", &[HOST, ("Authorization", &joined)], None);
    assert_refused(&answer, "PR401-AU-0001", "no space");
    for (number, (method, target, body)) in RESOURCES.into_iter().enumerate() {
        let mut tries = 0;
        loop {
            let value = basic(&format!("nobody-{number}-{tries}"), PASSWORD);
            let headers = [HOST, ("Authorization", value.as_str())];
            let begun = Instant::now();
            let answer = system.anonymous(method, target, &headers, body);
            assert_refused(&answer, "PR401-AU-0011", &format!("{method} {target}"));
            let soon = system.anonymous(method, target, &headers, body);
            if begun.elapsed() < Duration::from_secs(1) {
                break assert_refused(&soon, "PR401-AU-0010", &format!("{method} {target}, too soon"));
            }
            tries += 1;
        }
    }
    edit(&system, "Account", "花子", "h", &json!({"HashAlgorithm": "scrypt", "HashedCredential": SCRYPT}));
    edit(&system, "Account", "taro", "s,Status", &json!("deactivated"));
    for (name, password) in [("ME", PASSWORD), ("taro", PASSWORD), ("", PASSWORD), ("m%00e", PASSWORD)] {
        assert_eq!(seen(&ask(&system, &basic(name, password))), "PR401-AU-0011", "{name}:{password}");
    }
    // A wrong password closes the account for a while, to the right one too, and no other account.
    let begun = Instant::now();
    assert_eq!(seen(&ask(&system, &basic("me", "right password 7KqX"))), "PR401-AU-0011");
    let soon = seen(&ask(&system, &basic("me", PASSWORD)));
    assert!(soon == "PR401-AU-0010" || begun.elapsed() > Duration::from_secs(1), "{soon}");
    assert_eq!(seen(&ask(&system, &basic("花子", PASSWORD))), "PR401-AU-0001");
    eventually("another try is looked at", || seen(&ask(&system, &basic("me", PASSWORD))) == "PR401-AU-0001");
    assert_eq!(done(&system), before);
}

#[test]
fn root_is_what_the_cells_acl_and_roles_say() {
    let system = system(&[]);
    let right = basic("me", PASSWORD);
    let check = |what: &str, expected: &[(&str, &str)]| {
        forget();
        for (credential, expected) in expected {
            assert_eq!(seen(&ask(&system, credential)), *expected, "{what}: {credential}");
        }
        undo(&system);
    };
    let lacking = "PR403-AU-0002";
    let nobody = [(ME, lacking), (BOB, lacking), (TOKEN, "200"), ("", "PR401-AU-0001"), ("x", "PR401-AU-0006")];

    check(
        "a role of the cell",
        &[
            (ME, "200"),
            (BOB, "200"),
            (TOKEN, "200"),
            (TARO, lacking),
            (BOB_WITHOUT_ROLES, lacking),
            (OWNER, lacking),
            (PASSWORD_CHANGE, lacking),
            (ME_UNSCOPED, "PR403-AU-0007"),
            (BOB_UNSCOPED, "PR403-AU-0007"),
            (NOBODY, "PR401-AU-0001"),
            ("", "PR401-AU-0001"),
            ("x", "PR401-AU-0006"),
            (&right, "PR401-AU-0001"),
        ],
    );

    set_acl(&system, &root_for(&system, "operator"));
    check("a role of a box", &[(ME, lacking), (BOB, "200"), (BOB_UNSCOPED, lacking)]);
    set_acl(&system, &root_for(&system, "operator"));
    link(&system, "operator");
    check("a role of a box that the account has", &[(ME, "200"), (BOB, "200"), (ME_UNSCOPED, "PR403-AU-0007")]);
    set_acl(&system, &root_for(&system, "operator"));
    edit(&system, "Role", "admin", "s,Name", &json!("operator"));
    check("a role of the cell with the name of one of a box", &[(ME, lacking), (BOB, "200")]);

    remove(&system, "Role", "admin");
    check("the role is removed", &nobody);
    edit(&system, "Role", "admin", "s,Name", &json!("boss"));
    check("the role is renamed", &[(ME, "200"), (BOB, lacking)]);
    system.execute("DELETE FROM document WHERE type = 'link'");
    check("the account's role is removed", &[(ME, lacking), (BOB, "200"), ("", "PR401-AU-0001")]);
    set_acl(&system, &root_for(&system, "operator"));
    link(&system, "operator");
    remove(&system, "Box", "box1");
    check("the role's box is removed", &nobody);
    remove(&system, "Account", "me");
    check("the account is removed", &[(ME, "PR401-AU-0001"), (ME_UNSCOPED, "PR401-AU-0001"), (BOB, "200")]);
    edit(&system, "Account", "me", "s,Status", &json!("deactivated"));
    check("the account is deactivated", &[(ME, "PR401-AU-0001"), (BOB, "200"), (&right, "PR401-AU-0011")]);
    check("all is as it was", &[(ME, "200"), (BOB, "200")]);

    for (form, acl) in [
        ("nothing", json!({})),
        ("no entries", json!({"D.ace": []})),
        ("no cell", ace(&json!({"D.href": "gone"}), &json!([{"p.root": {}}]))),
        ("everything in a box", ace(&json!({"D.all": {}}), &json!([{"D.all": {}}, {"D.read": {}}, {"D.write": {}}]))),
        ("other privileges", ace(&json!({"D.all": {}}), &json!([{"p.auth": {}}, {"p.message": {}}, {"p.acl": {}}]))),
    ] {
        set_acl(&system, &acl);
        check(form, &nobody);
    }
    let admin = json!({"D.href": id(&system, "Role", "admin")});
    for (form, privileges, expected) in [
        ("all of a box", json!([{"D.all": {}}]), lacking),
        ("one, in no list", json!({"p.root": {}}), "200"),
        ("nothing in it", json!([{"p.root": null}]), "200"),
        ("another namespace", json!([{"D.read": {}}, {"D.root": {}}]), "200"),
        ("another name", json!([{"x.root": {}}, {"p.Root": {}}, {"p.root2": {}}]), lacking),
    ] {
        let mut acl = ace(&admin, &privileges);
        acl["@p.requireSchemaAuthz"] = json!("confidential");
        set_acl(&system, &acl);
        check(form, &[(ME, expected), (BOB, expected), (TARO, lacking)]);
    }
    system.execute("DELETE FROM node WHERE path = ''");
    check("no root", &nobody);
}

/// An ACL that admits everybody opens nothing to those without a token for `root`, and tells no reason any more.
#[test]
fn everybody_still_needs_the_scope() {
    let system = system(&[]);
    set_acl(&system, &ace(&json!({"D.all": {}}), &json!([{"p.root": {}}])));
    let (right, wrong) = (basic("me", PASSWORD), basic("nobody", PASSWORD));
    let unscoped = [
        "",
        "x",
        "Digest x",
        "Basic !",
        &wrong,
        ME_EXPIRED,
        ME_AT_CELL2,
        ME_UNSCOPED,
        BOB_UNSCOPED,
        REFRESH,
        GRANT_CODE,
        OWNER,
        OF_ANOTHER_UNIT,
    ];
    for credential in unscoped {
        assert_refused(&ask(&system, credential), "PR403-AU-0007", credential);
    }
    let cookie = format!("p_cookie={COOKIE}");
    for (target, code) in [(with_peer("x"), "PR403-AU-0007"), (with_peer(PEER), "200")] {
        let answer = system.anonymous("GET", &target, &[HOST, ("Cookie", &cookie)], None);
        assert_eq!(seen(&answer), code, "{target}");
    }
    for credential in [ME, TARO, BOB, BOB_WITHOUT_ROLES, PASSWORD_CHANGE, &right, TOKEN] {
        assert_eq!(seen(&ask(&system, credential)), "200", "{credential}");
    }
    assert_refused(&ask(&system, NOBODY), "PR401-AU-0001", "an account that is gone");
}

#[test]
fn a_cookie_counts_with_its_peer_and_without_an_authorization() {
    let system = system(&[("RUST_LOG", "debug")]);
    let unit = [("Host", "unit1.example")];
    assert_eq!(system.request("POST", "/__ctl/Cell", &unit, Some(br#"{"Name":"cell2"}"#)).status, 201);
    let whole = format!("p_cookie={COOKIE}");
    let get = |query: &str, headers: &[(&str, &str)]| {
        let answer = system.anonymous("GET", &format!("/__export?{query}"), headers, None);
        assert_eq!(answer.header("set-cookie"), None, "there are no sessions");
        seen(&answer)
    };
    let peer = format!("p_cookie_peer={PEER}");
    let holding = |value: &str| format!("p_cookie={value}");
    for (query, cookie, expected) in [
        (peer.as_str(), whole.as_str(), "200"),
        (&peer, &format!("a=b; {whole}; c=d"), "200"),
        (&format!("x=y&{peer}&z"), &whole, "200"),
        (&peer.replace('-', "%2D"), &whole, "200"),
        // Without a peer there is no cookie.
        ("", &whole, "PR401-AU-0001"),
        ("p_cookie_peer", &whole, "PR401-AU-0001"),
        ("p_cookie_peer=", &whole, "PR401-AU-0001"),
        ("P_Cookie_Peer=x", &whole, "PR401-AU-0001"),
        ("", "p_cookie=x", "PR401-AU-0001"),
        // What is wrong with the cookie itself is all the same.
        ("p_cookie_peer=x", &whole, "PR401-AU-0009"),
        (&peer[..peer.len() - 1], &whole, "PR401-AU-0009"),
        (&peer.replace('b', "B"), &whole, "PR401-AU-0009"),
        (&peer, "a=b", "PR401-AU-0009"),
        (&peer, &whole.replace("p_c", "P_C"), "PR401-AU-0009"),
        (&peer, &holding(""), "PR401-AU-0009"),
        (&peer, &holding("x y"), "PR401-AU-0009"),
        (&peer, &holding(&COOKIE[..64]), "PR401-AU-0009"),
        (&peer, &holding(ME), "PR401-AU-0009"),
        ("p_cookie_peer=no+tab", &holding(COOKIE_WITHOUT_TAB), "PR401-AU-0009"),
        // What is wrong with the token in it is told like that of any token.
        (&peer, &holding(COOKIE_EXPIRED), "PR401-AU-0002"),
        (&peer, &holding(COOKIE_AT_CELL2), "PR401-AU-0006"),
        (&peer, &holding(COOKIE_REFRESH), "PR401-AU-0007"),
    ] {
        assert_eq!(get(query, &[HOST, ("Cookie", cookie)]), expected, "{query} {cookie}");
    }
    let cookie = ("Cookie", whole.as_str());
    assert_eq!(get(&peer, &[HOST]), "PR401-AU-0009");
    assert_eq!(get(&peer, &[HOST, ("Cookie", "a=b"), cookie]), "200");
    assert_eq!(get(&peer, &[("Host", "cell2.unit1.example"), cookie]), "PR401-AU-0009");
    // Where there is an Authorization, it decides.
    for (authorization, expected) in
        [(bearer(TARO), "PR403-AU-0002"), (bearer("x"), "PR401-AU-0006"), (String::new(), "PR401-AU-0003")]
    {
        assert_eq!(get(&peer, &[HOST, cookie, ("Authorization", &authorization)]), expected, "{authorization}");
    }
    assert_eq!(get("p_cookie_peer=x", &[HOST, ("Authorization", &bearer(ME))]), "200");
    for (method, target, body) in RESOURCES {
        let answer = system.anonymous(method, &format!("{target}?{peer}"), &[HOST, cookie], body);
        assert!(![401, 403].contains(&answer.status), "{method} {target}: {}", answer.text());
    }
}

#[test]
fn tokens_are_minted_and_shown_on_the_command_line() {
    let system = system(&[]);
    // Neither the database nor anything else is needed for it.
    let of = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        let unit = [("UNIT_FQDN", "unit1.example")];
        unit.iter().chain(pairs).map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    let environment = of(&[("UNIT_SECRET16", SECRET)]);
    let file = system.directory().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let from_file = of(&[("UNIT_SECRET16_FILE", &file.display().to_string())]);
    let first = mint(&environment, "cell1", "me", &[]);
    assert_eq!(seen(&ask(&system, &first)), "200");
    assert_eq!(seen(&ask(&system, &mint(&from_file, "cell1", "me", &["--ttl", "30d"]))), "200");
    let of_two = mint(&environment, "cell1", "me", &["--scope", "message", "--scope", "root"]);
    for (token, expected) in [
        (of_two.as_str(), "200"),
        (&mint(&environment, "cell1", "me", &["--scope", "message"]), "PR403-AU-0007"),
        (&mint(&environment, "cell1", "花子", &[]), "PR403-AU-0002"),
        (&mint(&environment, "cell1", "nobody", &[]), "PR401-AU-0001"),
        (&mint(&environment, "cell2", "me", &[]), "PR401-AU-0006"),
        (&mint(&of(&[("UNIT_SECRET16", "another-secret-!")]), "cell1", "me", &[]), "PR401-AU-0006"),
    ] {
        assert_eq!(seen(&ask(&system, token)), expected, "{token}");
    }
    let short = mint(&environment, "cell1", "me", &["--ttl", "1s"]);
    eventually("it expires", || seen(&ask(&system, &short)) == "PR401-AU-0002");
    assert_eq!(seen(&ask(&system, &first)), "200", "another is not over by then");

    let show = |token: &str| process::run("api", &["token", "show", token], &environment);
    for (token, lines) in [
        (of_two.as_str(), vec!["issuer https://cell1.unit1.example/", "subject me", "scopes message root", "(valid)"]),
        (&short, vec!["issuer https://cell1.unit1.example/", "subject me", "scopes root", "(expired)"]),
        (ME, vec!["subject me", "scopes root", "issued 2023-11-14T22:13:20", "expires 2123-10-21T22:13:20"]),
        (
            BOB,
            vec![
                "subject https://other.unit2.example/#bob",
                "scopes root https://cell1.unit1.example/__role/__/admin",
                "schema https://app.unit1.example/",
                "role https://cell1.unit1.example/__role/__/admin",
                "role https://cell1.unit1.example/__role/box1/operator",
            ],
        ),
        (OWNER, vec!["issuer https://unit1.example/", "subject https://uuc.unit1.example/#owner1", "scopes none"]),
        (REFRESH, vec!["refresh token"]),
        (OLD_ME, vec!["subject me", "issuer https://cell1.unit1.example/"]),
    ] {
        let output = show(token);
        let said = words(&output);
        assert!(output.status.success(), "{token}: {said}");
        for line in lines {
            assert!(said.contains(line), "{line}: {said}");
        }
        assert!(!said.contains(SECRET) && !said.contains(token), "{said}");
    }
    let piped = piped(&["token", "show", "-"], &environment, &format!("{ME}\n"));
    assert_eq!(words(&piped), words(&show(ME)));

    let minting = ["token", "mint", "--cell", "cell1", "--account", "me"];
    for (what, arguments, environment, hint) in [
        ("no secret", &minting[..], of(&[]), "UNIT_SECRET16"),
        ("no secret", &["token", "show", ME], of(&[]), "UNIT_SECRET16"),
        ("no such file", &minting, of(&[("UNIT_SECRET16_FILE", "/nowhere/secret")]), "UNIT_SECRET16_FILE"),
        ("a secret of 17", &minting, of(&[("UNIT_SECRET16", "secret167pm5m4y6x")]), "UNIT_SECRET16"),
        ("another secret", &["token", "show", ME], of(&[("UNIT_SECRET16", "another-secret-!")]), "no token"),
        ("a text", &["token", "show", "x"], environment.clone(), "no token"),
        ("no cell", &["token", "mint", "--cell", "a/b", "--account", "me"], environment.clone(), "--cell"),
        ("no account", &["token", "mint", "--cell", "cell1", "--account", ""], environment.clone(), "--account"),
        ("a TAB", &["token", "mint", "--cell", "cell1", "--account", "me\t"], environment.clone(), "--account"),
        ("two in one", &[&minting[..], &["--scope", "a b"]].concat(), environment.clone(), "--scope"),
        ("no length", &[&minting[..], &["--ttl", "soon"]].concat(), environment.clone(), "--ttl"),
        ("for ever", &[&minting[..], &["--ttl", "11years"]].concat(), environment.clone(), "--ttl"),
    ] {
        let output = process::run("api", arguments, &environment);
        let said = words(&output);
        assert!(!output.status.success() && output.stdout.is_empty(), "{what}: {output:?}");
        assert!(said.contains(hint), "{what}: {said}");
        assert!(!said.contains(SECRET) && !said.contains("another-secret"), "{what}: {said}");
    }
}

/// What a command said, without the spaces that make columns.
fn words(output: &Output) -> String {
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs the api with something on its standard input.
fn piped(arguments: &[&str], environment: &[(String, String)], input: &str) -> Output {
    let mut command = Command::new(process::binary("api"));
    command.args(arguments).env_clear().envs(environment.iter().cloned());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Other changes count when the memory of the api ends, what an import replaces counts at once.
#[test]
fn an_import_counts_at_once() {
    let mut system = system(&[("DIRECTORY_CACHE_SECS", "60")]);
    put_one(&system);
    let _worker = system.worker();
    let run = |target: &str, name: &str| {
        let body = format!(r#"{{"Name":"{name}"}}"#);
        let answer = system.request("POST", target, &[HOST], Some(body.as_bytes()));
        assert_eq!(answer.status, 202, "{}", answer.text());
        let ready = |answer: Answer| answer.text() == r#"{"status":"ready"}"#;
        eventually("it is done", || ready(system.request("GET", target, &[HOST], None)));
    };
    system.execute("DELETE FROM document WHERE type = 'link'");
    run("/__export", "without");
    assert_eq!(seen(&ask(&system, ME)), "PR403-AU-0002");
    undo(&system);
    assert_eq!(seen(&ask(&system, ME)), "PR403-AU-0002", "what was read is remembered");
    run("/__import", "one");
    assert_eq!(seen(&ask(&system, ME)), "200");
    remove(&system, "Account", "me");
    assert_eq!(seen(&ask(&system, ME)), "200", "what was read is remembered");
    run("/__import", "without");
    assert_eq!(seen(&ask(&system, ME)), "PR403-AU-0002");
}
