//! Access control lists as `.pmeta` stores them: `D.` stands for `DAV:`, `p.` for Personium's namespace.

use model::store::directory::Role;
use serde_json::Value;

/// Namespace of Personium's own elements.
pub(crate) const PERSONIUM: &str = "urn:x-personium:xmlns";

/// An access control list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Acl {
    pub(crate) entries: Vec<Entry>,
    /// `none`, `public` or `confidential`, when it is set.
    pub(crate) require_schema: Option<String>,
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) principal: Principal,
    pub(crate) privileges: Vec<Privilege>,
}

/// Who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    All,
    /// By id, as stored.
    Role(String),
    /// By its place relative to the cell's roles, as shown: `admin`, or `../box1/operator`.
    Href(String),
}

/// A right, by name and namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Privilege {
    pub(crate) name: String,
    pub(crate) is_dav: bool,
}

impl Acl {
    /// Reads a stored list. Old files have single objects where arrays belong, names without prefix, and null where an
    /// object belongs. What makes no sense is left out.
    pub(crate) fn parse(stored: &Value) -> Self {
        let require = stored.get("@p.requireSchemaAuthz").or_else(|| stored.get("@requireSchemaAuthz"));
        Self {
            entries: one_or_many(stored.get("D.ace")).filter_map(entry).collect(),
            require_schema: require.and_then(Value::as_str).filter(|v| !v.is_empty()).map(str::to_owned),
        }
    }

    /// The ids of all roles it names.
    pub(crate) fn role_ids(&self) -> Vec<String> {
        let id = |entry: &Entry| match &entry.principal {
            Principal::Role(id) => Some(id.clone()),
            Principal::All | Principal::Href(_) => None,
        };
        self.entries.iter().filter_map(id).collect()
    }

    /// Replaces ids by names. Entries of roles that are gone disappear, as they have no effect either.
    pub(crate) fn name_roles(&mut self, roles: &[Role]) {
        self.entries.retain_mut(|entry| {
            let Principal::Role(id) = &entry.principal else { return true };
            let Some(role) = roles.iter().find(|r| r.id == *id) else { return false };
            entry.principal = Principal::Href(match &role.box_name {
                None => role.name.clone(),
                Some(of) => format!("../{of}/{}", role.name),
            });
            true
        });
    }
}

fn one_or_many(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    match value {
        Some(Value::Array(many)) => many.iter(),
        Some(one) => std::slice::from_ref(one).iter(),
        None => [].iter(),
    }
}

fn entry(stored: &Value) -> Option<Entry> {
    let principal = stored.get("D.principal")?;
    let principal = match (principal.get("D.all"), principal.get("D.href")) {
        (Some(_), _) => Principal::All,
        (None, Some(Value::String(id))) => Principal::Role(id.clone()),
        _ => return None,
    };
    let privileges = one_or_many(stored.get("D.grant").and_then(|g| g.get("D.privilege")));
    let names = privileges.filter_map(Value::as_object).flat_map(|p| p.keys());
    Some(Entry { principal, privileges: names.filter_map(|name| privilege(name)).collect() })
}

fn privilege(stored: &str) -> Option<Privilege> {
    let (name, is_dav) = match (stored.strip_prefix("D."), stored.strip_prefix("p.")) {
        (Some(name), _) => (name, true),
        (None, Some(name)) => (name, false),
        (None, None) => (stored, false),
    };
    let legal = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    legal.then(|| Privilege { name: name.to_owned(), is_dav })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn old_and_new_forms_are_read() {
        let new = json!({"D.ace": [
            {"D.principal": {"D.href": "id1"}, "D.grant": {"D.privilege": [{"p.root": {}}, {"D.read": {}}]}},
            {"D.principal": {"D.all": {}}, "D.grant": {"D.privilege": [{"p.auth": null}]}},
        ], "@p.requireSchemaAuthz": "public"});
        let acl = Acl::parse(&new);
        assert_eq!(acl.entries.len(), 2);
        assert_eq!(acl.entries[0].privileges[1], Privilege { name: "read".to_owned(), is_dav: true });
        assert_eq!(acl.entries[1].principal, Principal::All);
        assert_eq!(acl.require_schema.as_deref(), Some("public"));
        let old = json!({"D.ace": {"D.principal": {"D.href": "id1"}, "D.grant": {"D.privilege": {"root": {}}}}});
        assert_eq!(Acl::parse(&old).entries[0].privileges, [Privilege { name: "root".to_owned(), is_dav: false }]);
        assert_eq!(Acl::parse(&json!({})), Acl::default());
        assert_eq!(Acl::parse(&json!({"D.ace": [{}, 1, {"D.principal": {"D.href": 1}}]})).entries, []);
    }

    #[test]
    fn roles_get_their_names_and_those_that_are_gone_disappear() {
        let stored = json!({"D.ace": [
            {"D.principal": {"D.href": "a"}}, {"D.principal": {"D.href": "b"}}, {"D.principal": {"D.href": "gone"}},
        ]});
        let mut acl = Acl::parse(&stored);
        let role = |id: &str, name: &str, of: Option<&str>| Role {
            id: id.to_owned(),
            name: name.to_owned(),
            box_name: of.map(str::to_owned),
        };
        acl.name_roles(&[role("a", "admin", None), role("b", "operator", Some("box1"))]);
        let shown: Vec<_> = acl.entries.iter().map(|e| e.principal.clone()).collect();
        assert_eq!(shown, [Principal::Href("admin".to_owned()), Principal::Href("../box1/operator".to_owned())]);
    }
}
