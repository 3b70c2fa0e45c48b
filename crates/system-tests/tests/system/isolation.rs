//! Two cells of one unit: what opens one is worth nothing at the other, and learns nothing of it.
//!
//! Everything that is particular to `cellb` has the word `canary` in it.

use system_tests::http::Answer;
use system_tests::secrets::remember_secret;
use system_tests::system::{System, TOKEN};
use system_tests::units_tokens::{basic, mint, unit};

/// A method, a path, headers that matter, a body.
type Request = (&'static str, &'static str, &'static [(&'static str, &'static str)], Option<&'static str>);

/// All requests to a cell. `FILE` stands for the name of a file, `NAME` for it without its extension. What reads a file
/// comes first, what ends it last.
const REQUESTS: [Request; 32] = [
    ("GET", "__export", &[], None),
    ("HEAD", "__export", &[], None),
    ("OPTIONS", "__export", &[], None),
    ("GET", "__import", &[], None),
    ("HEAD", "__import", &[], None),
    ("OPTIONS", "__import", &[], None),
    ("GET", "__import/dry-run", &[], None),
    ("HEAD", "__import/dry-run", &[], None),
    ("OPTIONS", "__import/dry-run", &[], None),
    ("PROPFIND", "__snapshot", &[("Depth", "0")], None),
    ("PROPFIND", "__snapshot", &[("Depth", "1")], None),
    ("OPTIONS", "__snapshot", &[], None),
    ("POST", "__snapshot", &[("X-HTTP-Method-Override", "PROPFIND"), ("Depth", "1")], None),
    ("GET", "__snapshot/FILE", &[], None),
    ("GET", "__snapshot/FILE", &[("Range", "bytes=0-9")], None),
    ("GET", "__snapshot/FILE", &[("If-None-Match", "*"), ("If-Match", "*")], None),
    ("HEAD", "__snapshot/FILE", &[], None),
    ("PROPFIND", "__snapshot/FILE", &[("Depth", "0")], None),
    ("OPTIONS", "__snapshot/FILE", &[], None),
    ("REPORT", "__snapshot/FILE", &[], None),
    ("POST", "__snapshot/FILE", &[("X-HTTP-Method-Override", "HEAD")], None),
    ("PUT", "__snapshot/FILE", &[("If-Match", "\"1-1\"")], Some("from outside")),
    ("DELETE", "__snapshot/FILE", &[("If-Match", "\"1-1\"")], None),
    ("PUT", "__snapshot/FILE", &[("If-None-Match", "*")], Some("from outside")),
    ("PUT", "__snapshot/FILE", &[], Some("from outside")),
    ("POST", "__snapshot/FILE", &[("X-HTTP-Method-Override", "DELETE")], None),
    ("DELETE", "__snapshot/FILE", &[], None),
    ("POST", "__import", &[], Some(r#"{"Name":"NAME"}"#)),
    ("POST", "__import/dry-run", &[], Some(r#"{"Name":"NAME"}"#)),
    ("POST", "__export", &[], Some("{")),
    ("POST", "__export", &[], Some(r#"{"Name":"NAME"}"#)),
    ("POST", "__export", &[], None),
];

/// All requests to the unit; `CELL` stands for the name of a cell.
const UNIT_REQUESTS: [Request; 10] = [
    ("GET", "__ctl/Cell", &[], None),
    ("HEAD", "__ctl/Cell", &[], None),
    ("OPTIONS", "__ctl/Cell", &[], None),
    ("POST", "__ctl/Cell", &[], Some(r#"{"Name":"CELL"}"#)),
    ("GET", "__ctl/Cell('CELL')", &[], None),
    ("HEAD", "__ctl/Cell('CELL')", &[], None),
    ("OPTIONS", "__ctl/Cell('CELL')", &[], None),
    ("DELETE", "__ctl/Cell('CELL')", &[], None),
    ("DELETE", "__ctl/Cell('CELL')", &[("If-Match", "*")], None),
    ("POST", "__ctl/Cell('CELL')", &[("X-HTTP-Method-Override", "DELETE")], None),
];

// Of `cella` in either form of URLs, for a hundred years, written by independent code: tokens of a visitor who has the
// role `admin` there and, as that token says, `admin-canary` in `cellb`; cookies of the account `me`.
const VISITORS: [&str; 2] = [
    "AV~9jqVm3ez8jRxCbm04UWB1rdf6McRwwgqZvjC-kYxupjD4WbTLDyfmYbRAe7SNRqEo_I_MeykmWTtSY4WroFe4lSg_iLHO7ZjKlv1ojuLmZBjkOVaNYOC7KkhKY3qO-LQjLGBETwS8rbYj75vXHG_UqPXj4GVoUHic22qEiPLXxfdlFi6PTWGF6640ZZUDw-PJC-VeZIOy3Ag8Of9nELq3BxH_PsRPG9XETP0-7BrS5n86yFL4sU9ndno0mBqQGB-fBjfIicdQKvrX8b34gP_QA",
    "AV~z0Uk-Cid91MVEtrdH6Adf_IbDMY3MXXoQMNNigqHmC0CeBpCOP3VfkUv6OxIqXgT-cVyr41nkkZfyuevUnmEf4yYhjOYLkR5JxUCz-h65Ar5naBuI0gb_H65xwYEY9jH80_1opHSxW_qpGadvUGiHeyOJyTZaWlTyJ9GsTouQsk30YXJo7nZVp_lMpHywqfo2nCzLieRNtvrp1PNdZy3DhBqKspbxw2CiaRm_k3KyxTo_cLiLeyJ6uXt3DJvE_92mDs_N_XSdtIxlCzRejuI5Q",
];
const COOKIES: [&str; 2] = [
    "h2ywSgcXKq3-16XaHl3jpJCSqpntBA8g1tqIu99oREDNH3FCQ6mHZI1ZhN0M1GgnRBeMpfudCshRrpcC_nrALpJl3l2SMvXDJPyBQzgxHttkQTQKsrqExIDI9X2xImHGTdjs-rlQDTGl12RNiXIKjN4KvLvkP_ShiV0QuTUkRSefZkoe1UkM_VDT0_oReOZmPVTZUZUqZuJWz2omTBr9Gw",
    "l__5GuXjmB0wSQpG5qf0Ym9TgqOjA1c9s9sEo_obZU3rcthzARjXwCpAhgNa0nqYoXxK8Ff--209t4jInENuxF3Ta70xb2dcXij49_oWMxJAdDkrDgPUiwaMoOm1z1e3aRwyMpLEubPVTxP_C8yxyJtL4XmW9x15QflhBwKBt47WYL2DI_VLWPkzVr5eG-d8csgTobMBNzEUURZ50zz9jg",
];
const PEER: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

/// A unit with two cells that differ in nothing but the canaries: accounts and roles have the same names.
struct Unit {
    system: System,
    path_based: bool,
}

/// Something that opens a cell.
struct Credential {
    what: &'static str,
    headers: Vec<(&'static str, String)>,
    query: String,
}

impl Credential {
    fn new(what: &'static str, name: &'static str, value: String) -> Self {
        Self { what, headers: vec![(name, value)], query: String::new() }
    }

    fn bearer(token: &str) -> Self {
        Self::new("a token", "Authorization", format!("Bearer {token}"))
    }

    /// Without `Authorization`, `OPTIONS` is a question of a browser, which gets one and the same answer everywhere.
    fn is_authorization(&self) -> bool {
        self.headers.iter().any(|(name, _)| matches!(*name, "Authorization" | "X-Override"))
    }
}

impl Unit {
    fn start(path_based: bool) -> Self {
        let system = System::start_with(unit(path_based, &[("BASIC_TOKENS", "true")]));
        for cell in ["cella", "cellb"] {
            let loaded = system.load(cell, &system.sample(&["--name", cell]), &["--cell-id", cell]);
            assert!(loaded.status.success(), "{loaded:?}");
        }
        let unit = Self { system, path_based };
        unit.spread_canaries();
        unit
    }

    fn spread_canaries(&self) {
        let master = &Credential::bearer(TOKEN);
        let of_b = "generation = (SELECT generation FROM cell WHERE name = 'cellb')";
        let error = r#"{"code":"PR500-SV-9999","message":{"lang":"en","value":"canary-content"}}"#;
        let sample = std::fs::read(self.system.sample(&["--name", "cellb"])).unwrap();
        let typed = [("Content-Type", "application/x-canary")];
        for (cell, file, headers, body) in [
            ("cella", "mine.zip", &[][..], &sample[..]),
            ("cellb", "canary-sample.zip", &[], &sample),
            ("cellb", "canary-zip.zip", &typed, b"canary-content"),
        ] {
            let answer = self.ask(cell, "PUT", &format!("__snapshot/{file}"), master, headers, Some(body));
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let order = |resource: &str, name: &str| {
            let body = format!(r#"{{"Name":"{name}"}}"#);
            let answer = self.ask("cellb", "POST", resource, master, &[], Some(body.as_bytes()));
            assert_eq!(answer.status, 202, "{}", answer.text());
        };
        order("__import/dry-run", "canary-sample");
        self.change(1, &format!("UPDATE job SET state = 'failed', finished_at = now(), error = '{error}'"));
        order("__export", "canary-job");
        self.change(
            1,
            &format!(
                "INSERT INTO snapshot_entry (cell_id, base_name, kind, body)
                 SELECT id, 'canary-error', 'error', '{error}' FROM cell WHERE name = 'cellb'"
            ),
        );
        let rename = r#"body = replace(body, '"Name":"admin"', '"Name":"admin-canary"')"#;
        self.change(2, &format!("UPDATE document SET {rename} WHERE type = 'Role' AND {of_b}"));
        self.change(3, &format!(r#"UPDATE document SET body = replace(body, '"oidc:google"', '"canary"') WHERE type = 'Account' AND {of_b}"#));
        let acl = r#"pmeta = jsonb_set(pmeta::jsonb, '{a,@p.requireSchemaAuthz}', '"canary-content"')::text"#;
        self.change(1, &format!("UPDATE node SET {acl} WHERE path = '' AND {of_b}"));
        let document = r#"document = jsonb_set(document::jsonb, '{_source,d,canary}', '"canary-content"')::text"#;
        self.change(1, &format!("UPDATE cell SET {document}, owner = 'https://canary.example/' WHERE name = 'cellb'"));
    }

    fn change(&self, rows: u64, statement: &str) {
        assert_eq!(self.system.execute(statement), rows, "{statement}");
    }

    /// Sends a request to a cell.
    fn ask(
        &self,
        cell: &str,
        method: &str,
        path: &str,
        by: &Credential,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        match self.path_based {
            true => self.send("unit1.example", method, &format!("{cell}/{path}"), by, headers, body),
            false => self.send(&format!("{cell}.unit1.example"), method, path, by, headers, body),
        }
    }

    fn send(
        &self,
        host: &str,
        method: &str,
        path: &str,
        by: &Credential,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let mut all = vec![("Host", host)];
        all.extend(by.headers.iter().map(|(name, value)| (*name, value.as_str())));
        all.extend(headers);
        self.system.anonymous(method, &format!("/{path}{}", by.query), &all, body)
    }

    /// What `me` has of a cell: the same right in every form.
    fn credentials(&self, cell: &str) -> Vec<Credential> {
        let token = mint(self.system.environment(), cell, "me", &[]);
        let cookie = COOKIES[usize::from(self.path_based)];
        let visitor = VISITORS[usize::from(self.path_based)];
        [cookie, visitor, PEER].into_iter().for_each(remember_secret);
        let bearer = Credential::bearer(&token);
        let mut all = vec![
            Credential::new("a token as a password", "Authorization", basic("me", &token)),
            Credential::new("a token in an override", "X-Override", format!("Authorization: Bearer {token}")),
            bearer,
        ];
        if cell == "cella" {
            all.push(Credential { what: "a visitor's token", ..Credential::bearer(visitor) });
            let query = format!("?p_cookie_peer={PEER}");
            all.push(Credential { query, ..Credential::new("a cookie", "Cookie", format!("p_cookie={cookie}")) });
        }
        all
    }

    /// Everything that there is in the unit.
    fn state(&self) -> String {
        let rows = self.system.value(
            "SELECT concat_ws(' ',
               (SELECT string_agg(c::text, ' ' ORDER BY id) FROM cell c),
               (SELECT md5(string_agg(d::text, ' ' ORDER BY generation, type, id)) FROM document d),
               (SELECT md5(string_agg(n::text, ' ' ORDER BY generation, path)) FROM node n),
               (SELECT string_agg(s::text, ' ' ORDER BY cell_id, base_name) FROM snapshot_entry s),
               (SELECT string_agg(concat_ws(' ', id, cell_id, kind, name, state, attempt, cancel_requested), ' ' ORDER BY id)
                FROM job))",
        );
        let mut files = self.system.stored();
        files.sort_unstable();
        format!("{rows} {files:?}")
    }
}

/// Path and body of a request for a file.
fn filled(path: &str, body: Option<&str>, file: &str) -> (String, Option<Vec<u8>>) {
    let name = file.rsplit_once('.').map_or(file, |(name, _)| name);
    let fill = |text: &str| text.replace("FILE", file).replace("NAME", name).replace("CELL", file);
    (fill(path), body.map(|body| fill(body).into_bytes()))
}

/// Everything in an answer that may tell something.
fn told(answer: &Answer) -> String {
    let headers = answer.headers.iter().filter(|(name, _)| name != "date");
    let mut headers: Vec<_> = headers.map(|(name, value)| format!("{name}: {value}")).collect();
    headers.sort_unstable();
    format!("{}\n{}\n\n{}", answer.status, headers.join("\n"), answer.text())
}

/// What outsiders are answered, whatever it is that they ask for.
fn refusal(method: &str, by: &Credential) -> u16 {
    match method {
        "OPTIONS" if !by.is_authorization() => 200,
        // No Personium has this method.
        "REPORT" => 501,
        _ => 401,
    }
}

/// All names are the same to outsiders, and so is what they are answered about them.
fn assert_outsiders_learn_nothing(unit: &Unit, outsiders: &[Credential]) {
    let names = ["canary-zip.zip", "canary-error.error", "canary-job.zip", "none.zip", "none.error", "no%2fne.zip"];
    for by in outsiders {
        for (method, path, headers, body) in REQUESTS {
            let mut answers: Vec<String> = names
                .iter()
                .map(|file| {
                    let (path, body) = filled(path, body, file);
                    let answer = unit.ask("cellb", method, &path, by, headers, body.as_deref());
                    let case = format!("{} at {method} {path} {headers:?}", by.what);
                    assert_eq!(answer.status, refusal(method, by), "{case}: {}", answer.text());
                    told(&answer)
                })
                .collect();
            answers.dedup();
            let case = format!("{} at {method} {path} {headers:?}", by.what);
            assert_eq!(answers.len(), 1, "{case}: {answers:#?}");
            assert!(!answers[0].to_lowercase().contains("canary"), "{case}: {}", answers[0]);
        }
    }
}

/// Cells' tokens are nothing to the unit, not even those of the cell that is asked for.
fn assert_cells_are_not_the_unit(unit: &Unit, outsiders: &[Credential]) {
    for by in outsiders {
        for (method, path, headers, body) in UNIT_REQUESTS {
            let mut answers: Vec<String> = ["cella", "cellb", "cellc"]
                .iter()
                .map(|cell| {
                    let (path, body) = filled(path, body, cell);
                    let answer = unit.send("unit1.example", method, &path, by, headers, body.as_deref());
                    assert_eq!(answer.status, refusal(method, by), "{} at {method} {path}: {}", by.what, answer.text());
                    told(&answer)
                })
                .collect();
            answers.dedup();
            assert_eq!(answers.len(), 1, "{} at {method} {path}: {answers:#?}", by.what);
            assert!(!answers[0].to_lowercase().contains("canary"), "{}", answers[0]);
        }
    }
}

/// No way of writing the URL leads from one cell into the other.
fn assert_there_are_no_detours(unit: &Unit, by: &Credential) {
    let (host_a, host_b) = ("cella.unit1.example", "cellb.unit1.example");
    for resource in ["__export", "__import/dry-run", "__snapshot/canary-zip.zip", "__snapshot/canary-error.error"] {
        let of_b = format!("/cellb/{resource}");
        let deep = resource.replace('/', "%2f");
        let at_host_b = format!("http://{host_b}/{resource}");
        let detours: Vec<(&str, String, (&str, &str))> = match unit.path_based {
            true => vec![
                ("unit1.example", format!("cella/{resource}"), ("X-Forwarded-Path", &of_b)),
                ("unit1.example", format!("cella/../cellb/{resource}"), ("A", "b")),
                ("unit1.example", format!("cella/%2e%2e/cellb/{resource}"), ("A", "b")),
                ("unit1.example", format!("cella%2f..%2fcellb/{resource}"), ("A", "b")),
                ("unit1.example", format!("/cellb/{resource}"), ("A", "b")),
                ("unit1.example", format!("cella/__snapshot/..%2f..%2fcellb%2f{deep}"), ("A", "b")),
                (host_b, resource.to_owned(), ("A", "b")),
            ],
            false => vec![
                (host_a, resource.to_owned(), ("X-Forwarded-Host", host_b)),
                (host_b, resource.to_owned(), ("X-Forwarded-Host", host_a)),
                (host_a, resource.to_owned(), ("X-Override", "Host: cellb.unit1.example")),
                (host_b, resource.to_owned(), ("X-Override", "Host: cella.unit1.example")),
                (host_a, resource.to_owned(), ("X-Forwarded-Path", &of_b)),
                (host_a, resource.to_owned(), ("X-Forwarded-Path", &at_host_b)),
                ("cella.cellb.unit1.example", resource.to_owned(), ("A", "b")),
                (host_a, format!("__snapshot/..%2f..%2fcellb%2f{deep}"), ("A", "b")),
            ],
        };
        for (host, path, header) in detours {
            let told = told(&unit.send(host, "GET", &path, by, &[header], None));
            let found = ["canary-content", "canary-job", "x-canary"].iter().any(|canary| told.contains(canary));
            assert!(!found, "{host} {path} {header:?}: {told}");
        }
    }
}

/// What is refused to the others is there, and opens to what it is for.
fn assert_insiders_see_all(unit: &Unit) {
    let by_b = &unit.credentials("cellb")[0];
    for (path, canary) in [
        ("__export", "canary-job"),
        ("__import/dry-run", "canary-content"),
        ("__snapshot/canary-zip.zip", "canary-content"),
        ("__snapshot/canary-zip.zip", "application/x-canary"),
        ("__snapshot/canary-error.error", "canary-content"),
    ] {
        let answer = unit.ask("cellb", "GET", path, by_b, &[], None);
        assert!(answer.status == 200 && told(&answer).contains(canary), "{path}: {}", told(&answer));
    }
    let listed = told(&unit.ask("cellb", "PROPFIND", "__snapshot", by_b, &[("Depth", "1")], None));
    for canary in ["canary-sample.zip", "canary-zip.zip", "canary-error.error", "admin-canary", "canary-content"] {
        assert!(listed.contains(canary), "{canary}: {listed}");
    }
    for (path, by) in [("__ctl/Cell", None), ("__ctl/Cell('cellb')", None), ("__export", Some(by_b))].into_iter().chain(
        ["__import", "__import/dry-run", "__snapshot", "__snapshot/canary-zip.zip"].map(|path| (path, Some(by_b))),
    ) {
        assert_all_methods_are_tried(unit, path, by);
    }
    for by in unit.credentials("cella") {
        let listed = unit.ask("cella", "PROPFIND", "__snapshot", &by, &[("Depth", "1")], None);
        assert!(listed.status == 207 && !told(&listed).contains("canary"), "{}: {}", by.what, told(&listed));
        for (method, path, headers, body) in REQUESTS {
            let (path, body) = filled(path, body, "mine.zip");
            let answer = unit.ask("cella", method, &path, &by, headers, body.as_deref());
            assert!(![401, 403].contains(&answer.status), "{} at {method} {path}: {}", by.what, answer.text());
        }
    }
}

/// Every method that a resource names stands in the lists above.
fn assert_all_methods_are_tried(unit: &Unit, path: &str, by: Option<&Credential>) {
    let answer = match by {
        Some(by) => unit.ask("cellb", "OPTIONS", path, by, &[], None),
        None => unit.send("unit1.example", "OPTIONS", path, &Credential::bearer(TOKEN), &[], None),
    };
    let methods = answer.header("allow").unwrap_or_else(|| panic!("{path}: {}", told(&answer)));
    let tried = |method: &str| {
        let is = |(m, p, ..): &Request| {
            *m == method && filled(p, None, if by.is_some() { "canary-zip.zip" } else { "cellb" }).0 == path
        };
        REQUESTS.iter().chain(&UNIT_REQUESTS).any(is)
    };
    for method in methods.split(", ") {
        assert!(tried(method), "{method} {path} is not tried");
    }
}

fn assert_isolated(path_based: bool) {
    let unit = Unit::start(path_based);
    let before = unit.state();
    let mut outsiders = unit.credentials("cella");
    outsiders.push(Credential { what: "nothing", headers: vec![], query: String::new() });
    assert_outsiders_learn_nothing(&unit, &outsiders);
    assert_cells_are_not_the_unit(&unit, &outsiders);
    outsiders.iter().for_each(|by| assert_there_are_no_detours(&unit, by));
    assert_eq!(unit.state(), before);
    assert_insiders_see_all(&unit);
    assert_ne!(unit.state(), before);
}

#[test]
fn what_opens_one_cell_is_worth_nothing_at_another_by_path() {
    assert_isolated(true);
}

#[test]
fn what_opens_one_cell_is_worth_nothing_at_another_by_host() {
    assert_isolated(false);
}
