//! The unit's own tokens: reading and writing them.
//!
//! The plain text is fields between TABs: time of issue in milliseconds with its digits reversed, type, life in
//! milliseconds, subject, schema, scopes, issuer, and what the type adds. Versions before 1.7.18 of the unit's core knew
//! neither type nor scopes.

use super::cipher::{self, Iv, Key};

/// Whose URLs a token has to be issued by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Issuers<'a> {
    /// The cell that is asked; none where the unit is.
    pub(crate) cell: Option<&'a str>,
    /// URL of the unit.
    pub(crate) unit: &'a str,
    /// Host name of the unit, which unit users' tokens of old name.
    pub(crate) unit_host: &'a str,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An account of the cell.
    Resident,
    /// Somebody known elsewhere, with roles in the cell.
    Visitor,
    /// A unit user, on this unit only.
    UnitUser,
    /// An account that has to change its password first.
    PasswordChange,
    /// Gets new tokens for an account; opens nothing.
    ResidentRefresh,
    /// Gets new tokens for a visitor; opens nothing.
    VisitorRefresh,
    /// Gets a token; opens nothing.
    GrantCode,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Resident,
        Self::Visitor,
        Self::UnitUser,
        Self::PasswordChange,
        Self::ResidentRefresh,
        Self::VisitorRefresh,
        Self::GrantCode,
    ];

    fn prefix(self) -> &'static str {
        match self {
            Self::Resident => "AR~",
            Self::Visitor => "AV~",
            Self::UnitUser => "AU~",
            Self::PasswordChange => "AP~",
            Self::ResidentRefresh => "RR~",
            Self::VisitorRefresh => "RV~",
            Self::GrantCode => "GC~",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Resident => 0,
            Self::Visitor => 1,
            Self::ResidentRefresh => 3,
            Self::VisitorRefresh => 4,
            Self::GrantCode => 5,
            Self::UnitUser => 6,
            Self::PasswordChange => 7,
        }
    }

    /// Fields after the issuer.
    fn extras(self) -> usize {
        match self {
            Self::Visitor => 1,
            Self::VisitorRefresh => 3,
            Self::Resident | Self::UnitUser | Self::PasswordChange | Self::ResidentRefresh | Self::GrantCode => 0,
        }
    }

    fn issuer<'a>(self, issuers: &Issuers<'a>) -> Option<&'a str> {
        match self {
            Self::UnitUser => Some(issuers.unit),
            Self::Resident
            | Self::Visitor
            | Self::PasswordChange
            | Self::ResidentRefresh
            | Self::VisitorRefresh
            | Self::GrantCode => issuers.cell,
        }
    }

    /// The subject of these is a URL; that of the others is an account's name.
    fn has_url_as_subject(self) -> bool {
        matches!(self, Self::Visitor | Self::UnitUser | Self::VisitorRefresh)
    }
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    /// Milliseconds since 1970.
    pub(crate) issued: i64,
    /// Milliseconds.
    pub(crate) life: i64,
    /// An account's name, or a URL.
    pub(crate) subject: String,
    /// URL of the application, possibly with `#c` for a confidential one; empty without.
    pub(crate) schema: String,
    /// What it was given for; none for a token of old, which was for everything.
    pub(crate) scopes: Option<Vec<String>>,
    pub(crate) issuer: String,
    /// What the type adds: the roles of a visitor.
    pub(crate) extras: Vec<String>,
}

impl Token {
    /// Reads a token that was issued by one of `issuers` under this key; `of_old` accepts the formats of earlier
    /// versions too. Nothing, whatever is wrong with it.
    pub(crate) fn read(text: &str, key: &Key, issuers: &Issuers<'_>, of_old: bool) -> Option<Self> {
        if let Some((kind, rest)) = split(text) {
            let issuer = kind.issuer(issuers)?;
            if let Some(token) = Self::decrypt(kind, rest, key, &cipher::iv(issuer), issuer) {
                return Some(token);
            }
            if of_old && let Some(token) = Self::decrypt(kind, rest, key, &cipher::iv_of_old(issuer), issuer) {
                return Some(token);
            }
        }
        if of_old { Self::read_old(text, key, issuers) } else { None }
    }

    fn decrypt(kind: Kind, text: &str, key: &Key, iv: &Iv, issuer: &str) -> Option<Self> {
        Self::parse(kind, &key.decrypt(iv, text)?).filter(|token| token.issuer == issuer)
    }

    fn parse(kind: Kind, plain: &str) -> Option<Self> {
        let fields: Vec<&str> = plain.split('\t').collect();
        let [issued, number, life, subject, schema, scopes, issuer, extras @ ..] = fields.as_slice() else {
            return None;
        };
        let token = Self {
            kind,
            issued: number_of(&reversed(issued))?,
            life: number_of(life)?,
            subject: (*subject).to_owned(),
            schema: (*schema).to_owned(),
            scopes: Some(words(scopes)?),
            issuer: (*issuer).to_owned(),
            extras: extras.iter().map(|&extra| extra.to_owned()).collect(),
        };
        (*number == kind.number().to_string() && extras.len() == kind.extras() && token.is_plausible()).then_some(token)
    }

    /// Reads the forms before 1.7.18.
    fn read_old(text: &str, key: &Key, issuers: &Issuers<'_>) -> Option<Self> {
        let (kind, rest, issuer, iv) = if let Some(rest) = text.strip_prefix("AA~") {
            (Kind::Resident, rest, issuers.cell?, cipher::iv_of_old(issuers.cell?))
        } else if let Some(rest) = text.strip_prefix("AL~") {
            (Kind::Visitor, rest, issuers.cell?, cipher::iv_of_old(issuers.cell?))
        } else {
            let rest = text.strip_prefix("AU~")?;
            (Kind::UnitUser, rest, issuers.unit_host, cipher::iv_of_old_unit_users(issuers.unit_host))
        };
        let plain = key.decrypt(&iv, rest)?;
        let fields: Vec<&str> = plain.split('\t').collect();
        let (issued, life, subject, schema, roles, by) = match (kind, fields.as_slice()) {
            (Kind::Resident, &[issued, life, subject, schema, by]) => (issued, life, subject, schema, None, by),
            (Kind::Visitor, &[issued, life, subject, schema, roles, by]) => {
                (issued, life, subject, schema, Some(roles), by)
            }
            (Kind::UnitUser, &[issued, life, subject, by]) => (issued, life, subject, "", None, by),
            _ => return None,
        };
        let token = Self {
            kind,
            issued: number_of(&reversed(issued))?,
            life: number_of(life)?,
            subject: subject.to_owned(),
            schema: schema.to_owned(),
            scopes: None,
            issuer: by.to_owned(),
            extras: roles.into_iter().map(str::to_owned).collect(),
        };
        (by == issuer && token.is_plausible()).then_some(token)
    }

    /// A flipped bit turns sixteen bytes of the text into noise and changes what follows them. Noise is no printable
    /// ASCII: where URLs belong, nothing else is taken.
    fn is_plausible(&self) -> bool {
        let printable = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        let subject = match self.kind.has_url_as_subject() {
            true => printable(&self.subject),
            false => !self.subject.chars().any(char::is_control),
        };
        let extras = self.extras.iter().all(|extra| words(extra).is_some());
        subject && !self.subject.is_empty() && printable(&self.schema) && extras && self.expiry().is_some()
    }

    /// Writes a token.
    pub(crate) fn write(&self, key: &Key) -> String {
        let scopes = self.scopes.as_deref().unwrap_or_default().join(" ");
        let (issued, number, life) =
            (reversed(&self.issued.to_string()), self.kind.number().to_string(), self.life.to_string());
        let mut fields = vec![&*issued, &number, &life, &self.subject, &self.schema, &scopes, &self.issuer];
        fields.extend(self.extras.iter().map(String::as_str));
        let plain = fields.join("\t");
        format!("{}{}", self.kind.prefix(), key.encrypt(&cipher::iv(&self.issuer), plain.as_bytes()))
    }

    /// Its last millisecond.
    pub(crate) fn expiry(&self) -> Option<i64> {
        self.issued.checked_add(self.life)
    }

    /// Tells whether it is past its life.
    pub(crate) fn is_expired(&self, now_millis: i64) -> bool {
        self.expiry().is_none_or(|last| now_millis > last)
    }

    /// URLs of the roles that a visitor's token carries: `{cell}__role/{box or __}/{role}`.
    pub(crate) fn roles(&self) -> Vec<String> {
        let is_role = |url: &str| {
            let rest = url.split_once("/__role/").map(|(_, rest)| rest);
            rest.and_then(|rest| rest.split_once('/')).is_some_and(|(of, name)| !of.is_empty() && !name.is_empty())
        };
        let roles = self.extras.first().filter(|_| self.kind == Kind::Visitor);
        roles.into_iter().flat_map(|roles| roles.split(' ')).filter(|url| is_role(url)).map(str::to_owned).collect()
    }

    /// Reads a token whoever issued it, for people who want to know what it says.
    ///
    /// The vector changes the first sixteen bytes only, and these are time and type: the issuer can be read without it.
    pub(crate) fn read_any(text: &str, key: &Key) -> Option<Self> {
        let (_, rest) =
            split(text).or_else(|| OLD.iter().find_map(|p| Some((Kind::Resident, text.strip_prefix(p)?))))?;
        let readable = key.decrypt_tail(rest)?;
        readable.split('\t').filter(|field| !field.is_empty()).find_map(|issuer| {
            let issuers = Issuers { cell: Some(issuer), unit: issuer, unit_host: issuer };
            Self::read(text, key, &issuers, true)
        })
    }
}

/// Prefixes before version 1.7.18 that are none today.
const OLD: [&str; 2] = ["AA~", "AL~"];

/// Tells whether a text has the prefix of an access token of old.
pub(crate) fn is_of_old(text: &str) -> bool {
    OLD.iter().any(|prefix| text.starts_with(prefix))
}

/// Tells whether a text has the prefix of a refresh token of old.
pub(crate) fn is_refresh_of_old(text: &str) -> bool {
    ["RA~", "RT~"].iter().any(|prefix| text.starts_with(prefix))
}

/// Finds the kind of a token by its prefix.
pub(crate) fn split(text: &str) -> Option<(Kind, &str)> {
    Kind::ALL.into_iter().find_map(|kind| Some((kind, text.strip_prefix(kind.prefix())?)))
}

fn reversed(digits: &str) -> String {
    digits.chars().rev().collect()
}

/// A decimal number, written as numbers are: no sign, no zeros before it.
fn number_of(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number >= 0 && number.to_string() == text).then_some(number)
}

/// Words of printable ASCII between single spaces; none in an empty text.
fn words(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic());
    text.split(' ').map(|word| is_word(word).then(|| word.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: &str = "https://cell1.unit1.example/";
    const ISSUERS: Issuers<'static> =
        Issuers { cell: Some(CELL), unit: "https://unit1.example/", unit_host: "unit1.example" };
    const LIFE: i64 = 3_153_600_000_000;
    const ISSUED: i64 = 1_700_000_000_000;
    const BOB: &str = "https://other.unit2.example/#bob";

    fn key() -> Key {
        Key::new("secret167pm5m4y6".into()).expect("sixteen bytes")
    }

    fn token(kind: Kind, subject: &str, scopes: &[&str], extras: &[&str]) -> Token {
        Token {
            kind,
            issued: ISSUED,
            life: LIFE,
            subject: subject.to_owned(),
            schema: String::new(),
            scopes: Some(scopes.iter().map(|s| s.to_string()).collect()),
            issuer: kind.issuer(&ISSUERS).expect("both are set").to_owned(),
            extras: extras.iter().map(|s| s.to_string()).collect(),
        }
    }

    /// Tokens that the units' own code wrote, and what they say.
    fn vectors() -> Vec<(&'static str, Token)> {
        let roles = format!("{CELL}__role/__/admin {CELL}__role/box1/operator");
        let expired = Token { life: 3_600_000, ..token(Kind::Resident, "me", &[], &[]) };
        let schema = "https://app.unit1.example/".to_owned();
        let visitor =
            Token { schema, ..token(Kind::Visitor, BOB, &["root", &format!("{CELL}__role/__/admin")], &[&roles]) };
        let extras = [
            "11111111-2222-3333-4444-555555555555",
            "https://other.unit2.example/",
            "https://other.unit2.example/__role/__/staff",
        ];
        vec![
            (
                "AR~-LkQm22g006pTA-Btjn_JSggw9-w3PLXDkTqLPKAGHe3DvMNGeD6VipnPrX_e-SIEITFQucLVePBFRsNhwWt_X1DnSeAAW2ziUAS8DlwZos",
                token(Kind::Resident, "me", &["root"], &[]),
            ),
            ("AR~-LkQm22g006pTA-Btjn_JaOWL5B6BxcMSyDhR0cnHzVgVk78ttX_Lb009wOmdYC9ESoNsN5Q_k6_ZQm8YJZdTA", expired),
            (
                "AV~ggHcxFhDf0nLGFoO5-l4hw-jPEa20N-FqIGer9w80qWbO3KA3yl3z2C6GVN_zdpom0zlZp9EFs7NZJ5bGPPnJz_iXtLoJpfGPM1OecoyHqaEKR4CSeTwQHOFw3HXODT6E1N_sqTeY3Sy0myXoQd8rLUKxPHuO8qmtJCSBA8MlacDTsY8K-sIufgB7oXXWT0bv2SfSAAR2rXIU4Sx2D80MlkqFE_EAKCOdRKRbTU0sR1J4lRWwsVVGUy5BCsthpiaQEgbYS2bdWL1IXsaUejC4ZzQodtVP5l1q_PjDoSVkqvnqYKn3JWaKhd3nVsbo7DJN8DNRMrLE7e0LWSgalXeoPI82A975mgAU5O9eMyNz-w",
                visitor,
            ),
            (
                "AV~ggHcxFhDf0nLGFoO5-l4hw-jPEa20N-FqIGer9w80qWbO3KA3yl3z2C6GVN_zdpozsFS4HnAUNoDvkbDkEx6oWHH_YeOx7wh4U_IOWerRdyLjtRKNgk6DIfBYN2FHR3ALRrrHEDpuBi78jDjNhy-eA",
                token(Kind::Visitor, BOB, &["root"], &[""]),
            ),
            (
                "AU~IJY37S55ElZNMUWoazlK2FZ6zRKk4jSIkcE4eGEM1GkMiFLzQ_ic2s0nRtbjDvnzrPG_xQw0YNtg5ccNG-x98mfH9XDPATyszryv6IYyIyNH_Trmqu94mFve5dwBl08Q",
                token(Kind::UnitUser, "https://uuc.unit1.example/#owner1", &[], &[]),
            ),
            (
                "AP~nQSjRMn5msV2HeG8oiekUV0ZdTsNwrkeFdBQC7eG2wL4e3btUE4_3S4o5C6yK35wi7D5KF-KLUSn6ymMaeyufyw8EOWa8OW2owiIqRtuY2Y",
                token(Kind::PasswordChange, "me", &["root"], &[]),
            ),
            (
                "RR~fyRcjbV1TW0z3zaO1SeD7ytSZPlttqH3zk4vc9fkWNzMA5iAYaXdT0A19J6baUM5-3C8T_MIGZ4uG-RWRF27ZvC8HU5pIrI-hclEBqc52gE",
                token(Kind::ResidentRefresh, "me", &["root"], &[]),
            ),
            (
                "RV~xKqYO8mlrjL8vJmmboeNVpOlPUIZ2aX3iE2qylX_vGnP4fnTqiP1Aqne28KGj1iy9GTPgIZTqlew9-0lCKh0nBgsBtAGA7rNyewNXu728Y2co2EIAsWnTj3tmSuKe_rtxXCv0y-_XB2D4eupVW0ZoPchFfdB3C_oGxj9bula-2rzxrLjoH4jYkfbYnUWciJSVqRIHej1Di7uPDBTBECmNYooTTlppXLww8NesYaguAIREajSgTyO9cNPM5op7_YPHWpd_B-Fu0k8RMrzgTRsuA",
                token(Kind::VisitorRefresh, BOB, &["root"], &extras),
            ),
        ]
    }

    /// The same of versions before 1.7.18.
    fn vectors_of_old() -> Vec<(&'static str, Token)> {
        let of_old = |token: Token| Token { scopes: None, ..token };
        let role = format!("{CELL}__role/__/admin");
        vec![
            (
                "AA~hVTfxdkDRZd2KB65VNOgissfxQ1SVGDAkTGhQI13oqiFgal5FW_rAVf7n-yWiq4tk4RvH7bLXK8_WrRhIVsz9w",
                of_old(token(Kind::Resident, "me", &[], &[])),
            ),
            (
                "AL~hVTfxdkDRZd2KB65VNOgiqlJWRHIJl_jWF-DXy4d69R_t3xYi_4ZKnbu3gT4gExCT2RFJrNZyuBXy2N50wmfCoKWUYMcjaRI_LQFgmAF2AgYta6TiBwPxhyThs26RmWt9T-FCDyzwDQAK8XS6BxwNC5AMEXpBk1SMrPSZd5jPfpucD3CQDTsqw5MQ2V-XPWD",
                of_old(token(Kind::Visitor, BOB, &[], &[&role])),
            ),
        ]
    }

    #[test]
    fn tokens_of_units_are_read_and_written_to_the_byte() {
        for (text, token) in vectors() {
            assert_eq!(Token::read(text, &key(), &ISSUERS, false).as_ref(), Some(&token), "{text}");
            assert_eq!(token.write(&key()), text);
            assert_eq!(Token::read_any(text, &key()).as_ref(), Some(&token), "{text}");
        }
    }

    #[test]
    fn tokens_of_old_are_read_when_they_are_wanted() {
        for (text, token) in vectors_of_old() {
            assert_eq!(Token::read(text, &key(), &ISSUERS, false), None, "{text}");
            assert_eq!(Token::read(text, &key(), &ISSUERS, true).as_ref(), Some(&token), "{text}");
            assert_eq!(Token::read_any(text, &key()).as_ref(), Some(&token), "{text}");
        }
        // Unit users' tokens named a host; versions 1.7.18 to 1.7.20 wrote today's fields under the vector of old.
        let plain = format!("0000000000071\t{LIFE}\thttps://uuc.unit1.example/#owner1\tunit1.example");
        let text = format!("AU~{}", key().encrypt(&cipher::iv_of_old_unit_users("unit1.example"), plain.as_bytes()));
        assert!(Token::read(&text, &key(), &ISSUERS, true).is_some_and(|token| token.kind == Kind::UnitUser));
        let plain = format!("0000000000071\t0\t{LIFE}\tme\t\troot\t{CELL}");
        let text = format!("AR~{}", key().encrypt(&cipher::iv_of_old(CELL), plain.as_bytes()));
        assert_eq!(Token::read(&text, &key(), &ISSUERS, true), Some(token(Kind::Resident, "me", &["root"], &[])));
        assert_eq!(Token::read(&text, &key(), &ISSUERS, false), None);
    }

    #[test]
    fn a_flipped_bit_makes_it_none() {
        for of_old in [false, true] {
            let texts = vectors().into_iter().chain(if of_old { vectors_of_old() } else { Vec::new() });
            for (text, _) in texts {
                for bit in 0..text.len() * 8 {
                    let mut bytes = text.as_bytes().to_vec();
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    let text = String::from_utf8_lossy(&bytes);
                    assert_eq!(Token::read(&text, &key(), &ISSUERS, of_old), None, "bit {bit}: {text}");
                }
            }
        }
    }

    #[test]
    fn no_flipped_bit_of_random_tokens_passes() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let word = |random: &mut fastrand::Rng, longest: usize| -> String {
            (0..random.usize(1..=longest)).map(|_| random.alphanumeric()).collect()
        };
        for _ in 0..300 {
            let kind = Kind::ALL[random.usize(..Kind::ALL.len())];
            let url = |random: &mut fastrand::Rng| format!("https://{}.example/{}", word(random, 40), word(random, 60));
            let subject = if kind.has_url_as_subject() { url(&mut random) } else { word(&mut random, 100) };
            let extras: Vec<String> =
                (0..kind.extras()).map(|_| format!("{} {}", url(&mut random), url(&mut random))).collect();
            let token = Token {
                schema: url(&mut random),
                issued: random.i64(0..ISSUED),
                life: random.i64(0..LIFE),
                ..token(kind, &subject, &["root"], &extras.iter().map(String::as_str).collect::<Vec<_>>())
            };
            let text = token.write(&key());
            assert_eq!(Token::read(&text, &key(), &ISSUERS, false).as_ref(), Some(&token), "seed {seed}");
            for _ in 0..100 {
                let bit = random.usize(..text.len() * 8);
                let mut bytes = text.clone().into_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let read = Token::read(&String::from_utf8_lossy(&bytes), &key(), &ISSUERS, true);
                // An account that is none has no rights; a URL that is none is not taken.
                let harmless = read.as_ref().is_none_or(|read| {
                    !kind.has_url_as_subject() && Token { subject: token.subject.clone(), ..read.clone() } == token
                });
                assert!(harmless, "seed {seed}, bit {bit}: {read:?}");
            }
        }
    }

    #[test]
    fn a_token_is_for_its_issuer_under_its_key() {
        let text = vectors()[0].0;
        for cell in ["https://cell2.unit1.example/", "https://cell1.unit1.example", "http://cell1.unit1.example/"] {
            assert_eq!(Token::read(text, &key(), &Issuers { cell: Some(cell), ..ISSUERS }, true), None, "{cell}");
        }
        assert_eq!(Token::read(text, &key(), &Issuers { cell: None, ..ISSUERS }, true), None);
        let other = Key::new("secret167pm5m4y7".into()).expect("sixteen bytes");
        assert_eq!(Token::read(text, &other, &ISSUERS, true), None);
        // The vector says who issued it, and the text again: both must.
        let forged =
            format!("AR~{}", key().encrypt(&cipher::iv("https://b/"), b"0000000000071\t0\t1\tme\t\troot\thttps://a/"));
        for cell in ["https://a/", "https://b/"] {
            assert_eq!(Token::read(&forged, &key(), &Issuers { cell: Some(cell), ..ISSUERS }, false), None, "{cell}");
        }
    }

    #[test]
    fn what_is_not_exactly_a_token_is_none() {
        for plain in [
            "",
            "0000000000071\t0\t1\tme\t\troot",
            "0000000000071\t0\t1\tme\t\troot\tCELL\t",
            "0000000000071\t1\t1\tme\t\troot\tCELL",
            "0000000000071\t00\t1\tme\t\troot\tCELL",
            "000000000007x\t0\t1\tme\t\troot\tCELL",
            "0000000000071-\t0\t1\tme\t\troot\tCELL",
            "\t0\t1\tme\t\troot\tCELL",
            "0000000000071\t0\t+1\tme\t\troot\tCELL",
            "0000000000071\t0\t01\tme\t\troot\tCELL",
            "0000000000071\t0\t-1\tme\t\troot\tCELL",
            "0000000000071\t0\t9223372036854775807\tme\t\troot\tCELL",
            "0000000000071\t0\t9223372036854775808\tme\t\troot\tCELL",
            "0000000000071\t0\t1\t\t\troot\tCELL",
            "0000000000071\t0\t1\tm\u{1}e\t\troot\tCELL",
            "0000000000071\t0\t1\tme\té\troot\tCELL",
            "0000000000071\t0\t1\tme\t\troot  x\tCELL",
            "0000000000071\t0\t1\tme\t\t root\tCELL",
            "0000000000071\t0\t1\tme\t\troot\tCELL ",
        ] {
            let plain = plain.replace("CELL", CELL);
            let text = format!("AR~{}", key().encrypt(&cipher::iv(CELL), plain.as_bytes()));
            assert_eq!(Token::read(&text, &key(), &ISSUERS, true), None, "{plain:?}");
        }
        for text in ["", "AR~", "AR~A", "~", "AR", "XX~AAAA", "\u{fffd}"] {
            assert_eq!(Token::read(text, &key(), &ISSUERS, true), None, "{text:?}");
        }
    }

    #[test]
    fn it_lives_to_its_last_millisecond() {
        let token = token(Kind::Resident, "me", &["root"], &[]);
        assert!(!token.is_expired(ISSUED + LIFE));
        assert!(token.is_expired(ISSUED + LIFE + 1));
    }

    #[test]
    fn only_role_urls_are_roles() {
        let url = format!("{CELL}__role/__/admin");
        let roles = |extra: &str| token(Kind::Visitor, BOB, &[], &[extra]).roles();
        assert_eq!(roles(&format!("{url} https://x/__role//y https://x/role/a/b")), std::slice::from_ref(&url));
        assert!(roles("").is_empty());
        assert!(token(Kind::VisitorRefresh, BOB, &[], &[&url, "", ""]).roles().is_empty());
    }
}
