//! Who is asking, and whether they may do everything with a cell, or with the unit.
//!
//! Credentials are *parsed* for every request and *judged* where a resource needs them: what is wrong with them is
//! remembered, not thrown, because routing errors come first. Having a `CellRoot` or a `UnitMaster` is the proof of the
//! judgement; handlers take nothing less.

mod credentials;

use actix_web::http::header::WWW_AUTHENTICATE;
use model::error_code::ErrorCode;
use model::store::cells::Cell;

pub(crate) use credentials::parse;

use crate::error::ApiError;

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Showed the unit master token.
    UnitMaster,
    /// Showed the unit master token and asked to be this unit user, who has no roles.
    UnitUser(String),
    /// Showed nothing.
    Anonymous,
    /// Showed something that cannot be accepted, for this reason.
    Invalid(ErrorCode),
}

impl Principal {
    /// Nobody but the unit master is allowed anything yet; tokens of the unit get their judgement here. `lacking` is
    /// for those who are known and not allowed, `realm` the URL that a challenge names.
    fn prove_master(&self, realm: &str, lacking: ErrorCode) -> Result<(), ApiError> {
        let refused = match self {
            Self::UnitMaster => return Ok(()),
            Self::UnitUser(_) => return Err(lacking.into()),
            Self::Anonymous => ErrorCode::AuthorizationRequired,
            Self::Invalid(reason) => *reason,
        };
        Err(ApiError::from(refused).header(WWW_AUTHENTICATE, &format!("Bearer realm=\"{realm}\"")))
    }
}

/// A cell, and the proof that the caller has the privilege `root` on it.
#[derive(Debug, Clone)]
pub(crate) struct CellRoot {
    pub(crate) cell: Cell,
    /// URL of the cell, with a trailing slash.
    pub(crate) url: String,
}

impl CellRoot {
    /// Judges (reference of the rule: unit users first, then the cell's ACL, then scopes).
    ///
    /// # Errors
    /// 401 with a challenge when the credentials are absent or invalid, 403 when they do not suffice.
    pub(crate) fn prove(principal: &Principal, cell: Cell, url: String) -> Result<Self, ApiError> {
        principal.prove_master(&url, ErrorCode::PrivilegeLacking)?;
        Ok(Self { cell, url })
    }
}

/// The proof that the caller may do everything with the unit.
#[derive(Debug, Clone)]
pub(crate) struct UnitMaster {
    /// URL of the unit, with a trailing slash.
    pub(crate) url: String,
}

impl UnitMaster {
    /// Judges.
    ///
    /// # Errors
    /// 401 with a challenge when the credentials are absent or invalid, 403 when they do not suffice.
    pub(crate) fn prove(principal: &Principal, url: String) -> Result<Self, ApiError> {
        principal.prove_master(&url, ErrorCode::UnitUserRequired)?;
        Ok(Self { url })
    }
}
