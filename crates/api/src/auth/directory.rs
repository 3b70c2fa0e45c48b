//! What the `root` rule asks of a cell: whom its ACL gives everything, and which roles an account has.
//!
//! Answers are remembered for some seconds: whoever polls a status asks for the same ones all the time. A role that is
//! taken away is gone after that time at the latest; an import counts at once, as the contents have another name then.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use model::limits;
use model::store::cells::Cell;
use model::store::directory::{self, Account, Role};
use moka::sync::Cache;
use serde_json::Value;

use crate::database::Database;
use crate::error::ApiError;
use crate::webdav::acl::{Acl, Principal};

/// The cells' directories.
pub(crate) struct Directory {
    database: Database,
    roots: Cache<(String, String), Arc<Roots>>,
    accounts: Cache<(String, String, String), Option<RoleUrls>>,
}

/// URLs of the roles of an account.
pub(crate) type RoleUrls = Arc<HashSet<String>>;

/// Whom a cell's ACL gives the privilege `root`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Roots {
    everybody: bool,
    /// URLs of roles.
    roles: HashSet<String>,
}

impl Roots {
    /// Reads an ACL. Privileges are compared by their local names; none but `root` itself implies it at a cell. Entries
    /// of roles that are gone have no effect.
    fn of(acl: &Acl, roles: &[Role], cell_url: &str) -> Self {
        let mut roots = Self::default();
        for entry in acl.entries.iter().filter(|entry| entry.privileges.iter().any(|p| p.name == ROOT)) {
            match &entry.principal {
                Principal::All => roots.everybody = true,
                Principal::Role(id) => {
                    roots.roles.extend(roles.iter().filter(|role| role.id == *id).map(|role| role_url(cell_url, role)));
                }
                // Only the form that is shown has these.
                Principal::Href(_) => {}
            }
        }
        roots
    }

    /// Tells whether the ACL lets somebody with these roles do everything.
    pub(crate) fn admit<'a>(&self, mut roles: impl Iterator<Item = &'a String>) -> bool {
        self.everybody || roles.any(|role| self.roles.contains(role))
    }
}

/// The privilege that all resources here need.
pub(crate) const ROOT: &str = "root";

fn role_url(cell_url: &str, role: &Role) -> String {
    format!("{cell_url}__role/{}/{}", role.box_name.as_deref().unwrap_or("__"), role.name)
}

impl Directory {
    /// Remembers answers for so long.
    pub(crate) fn new(database: Database, remembered: Duration) -> Self {
        Self {
            database,
            roots: Cache::builder().max_capacity(limits::DIRECTORY_ENTRIES).time_to_live(remembered).build(),
            accounts: Cache::builder().max_capacity(limits::DIRECTORY_ENTRIES).time_to_live(remembered).build(),
        }
    }

    /// Whom the cell gives everything.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn roots(&self, cell: &Cell, cell_url: &str) -> Result<Arc<Roots>, ApiError> {
        let key = (cell.id.to_string(), cell.generation.clone());
        if let Some(roots) = self.roots.get(&key) {
            return Ok(roots);
        }
        let (id, url) = (cell.id.clone(), cell_url.to_owned());
        let reading = self.database.ask(async move |connection| {
            let pmeta = directory::root_pmeta(connection, &id).await?;
            let acl = Acl::parse(&acl_of(pmeta.as_deref().unwrap_or("{}")));
            let roles = directory::roles(connection, &id, &acl.role_ids()).await?;
            Ok::<_, ApiError>(Roots::of(&acl, &roles, &url))
        });
        let roots = Arc::new(reading.await?);
        self.roots.insert(key, roots.clone());
        Ok(roots)
    }

    /// URLs of the roles of an account; nothing when there is no such account, or one that is deactivated.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(crate) async fn account(&self, cell: &Cell, cell_url: &str, name: &str) -> Result<Option<RoleUrls>, ApiError> {
        let key = (cell.id.to_string(), cell.generation.clone(), name.to_owned());
        if let Some(account) = self.accounts.get(&key) {
            return Ok(account);
        }
        let (id, url, name) = (cell.id.clone(), cell_url.to_owned(), name.to_owned());
        let reading = self.database.ask(async move |connection| {
            let account = directory::account(connection, &id, &name).await?;
            let Some(Account { status, roles }) = account else { return Ok(None) };
            if is_deactivated(status.as_deref()) {
                return Ok(None);
            }
            let roles = directory::roles(connection, &id, &roles).await?;
            Ok::<_, ApiError>(Some(Arc::new(roles.iter().map(|role| role_url(&url, role)).collect())))
        });
        let account = reading.await?;
        self.accounts.insert(key, account.clone());
        Ok(account)
    }
}

/// Tells whether an account's status takes every right from it.
pub(crate) fn is_deactivated(status: Option<&str>) -> bool {
    status == Some("deactivated")
}

/// The ACL in a `.pmeta`.
fn acl_of(pmeta: &str) -> Value {
    let pmeta: Value = serde_json::from_str(pmeta).unwrap_or_default();
    pmeta.get("a").cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CELL: &str = "https://cell1.unit1.example/";

    fn roots(stored: &Value) -> Roots {
        let role = |id: &str, name: &str, of: Option<&str>| Role {
            id: id.to_owned(),
            name: name.to_owned(),
            box_name: of.map(str::to_owned),
        };
        Roots::of(&Acl::parse(stored), &[role("a", "admin", None), role("b", "operator", Some("box1"))], CELL)
    }

    fn granting(principal: &Value, privileges: &Value) -> Value {
        json!({"D.ace": [{"D.principal": principal, "D.grant": {"D.privilege": privileges}}]})
    }

    #[test]
    fn only_root_is_root() {
        let admin = json!({"D.href": "a"});
        for (privileges, expected) in [
            (json!([{"p.root": {}}]), true),
            (json!([{"p.root": null}]), true),
            (json!({"root": {}}), true),
            (json!([{"D.read": {}}, {"D.root": {}}]), true),
            (json!([{"D.all": {}}]), false),
            (json!([{"p.auth": {}}, {"p.message": {}}, {"p.box": {}}]), false),
            (json!([{"p.Root": {}}, {"p.roots": {}}]), false),
            (json!([]), false),
        ] {
            let roots = roots(&granting(&admin, &privileges));
            let url = format!("{CELL}__role/__/admin");
            assert_eq!(roots.admit([url].iter()), expected, "{privileges}");
            assert!(!roots.admit([].iter()));
        }
    }

    #[test]
    fn roles_are_compared_by_url() {
        let root = json!([{"p.root": {}}]);
        let of = |id: &str| roots(&granting(&json!({"D.href": id}), &root));
        let admit = |roots: &Roots, url: &str| roots.admit([format!("{CELL}{url}")].iter());
        assert!(admit(&of("b"), "__role/box1/operator"));
        for other in ["__role/__/operator", "__role/box1/operator/", "__role/box1/Operator", "__role/box1/admin", ""] {
            assert!(!admit(&of("b"), other), "{other}");
        }
        assert!(!of("b").admit(["https://cell2.unit1.example/__role/box1/operator".to_owned()].iter()));
        assert_eq!(of("gone"), Roots::default());
    }

    #[test]
    fn everybody_is_everybody() {
        let roots = roots(&granting(&json!({"D.all": {}}), &json!([{"p.root": {}}])));
        assert!(roots.admit([].iter()));
    }

    #[test]
    fn what_cannot_be_read_admits_nobody() {
        for pmeta in ["", "{", "[]", "{}", r#"{"a":1}"#, r#"{"a":{"D.ace":3}}"#] {
            assert_eq!(roots(&acl_of(pmeta)), Roots::default(), "{pmeta}");
        }
    }
}
