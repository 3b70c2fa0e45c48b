//! Who is asking, and whether they may do everything with a cell, or with the unit.
//!
//! Credentials are *read* for every request and *judged* where a resource needs them: what is wrong with them is
//! remembered, not thrown, because routing errors come first. Having a `CellRoot` or a `UnitMaster` is the proof of the
//! judgement; handlers take nothing less.
//!
//! Reading order: `credentials` finds out who is asking (`token`, `cipher`, `passwords` and `web_token` know the forms),
//! `Auth::judge` decides, `directory` tells what the cell says.

mod cipher;
mod credentials;
mod directory;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod key_set;
mod passwords;
mod token;
pub mod token_command;
mod web_token;

use std::time::Duration;

use actix_web::http::header::WWW_AUTHENTICATE;
use chrono::Utc;
use model::error_code::ErrorCode;
use model::settings::UnitSettings;
use model::store::cells::Cell;
use secrecy::SecretString;

pub(crate) use key_set::KeySet;
pub use key_set::KeySource;
pub use web_token::WebTokenSettings;

use self::cipher::Key;
use self::credentials::Agreement;
use self::directory::{Directory, ROOT};
use self::passwords::{Basic, Passwords};
use self::token::Issuers;
use self::web_token::{Refused, WebTokens};
use crate::common::incoming::Incoming;
use crate::database::Database;
use crate::error::ApiError;

/// Who is asking.
#[derive(Debug, Clone)]
enum Principal {
    /// Showed the unit master token.
    UnitMaster,
    /// Showed nothing.
    Anonymous,
    /// Showed something that cannot be accepted, for this reason.
    Invalid(ErrorCode),
    /// Showed a name and a password that nobody has looked at yet.
    Password(Basic),
    /// Showed a token of an OpenID Connect issuer that nobody has looked at yet.
    WebToken(SecretString),
    /// Showed a token of the unit.
    Known(Known),
}

/// Somebody with a token of the unit.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    roles: Roles,
    scopes: Scopes,
}

/// Which roles somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Roles {
    None,
    /// Those that this account of the cell is linked to.
    Account(String),
    /// Those with these URLs.
    Urls(Vec<String>),
}

/// What a token was given for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scopes {
    /// Everything.
    All,
    These(Vec<String>),
}

impl Scopes {
    fn contain(&self, scope: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(scopes) => scopes.iter().any(|s| s == scope),
        }
    }
}

/// Who is asking, and how they may be told to show credentials.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    principal: Principal,
    offer_basic: bool,
}

/// Settings of this part.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Whoever shows it may do everything with every cell.
    pub master_token: Option<SecretString>,
    /// The unit's secret (its setting `security.secret16`), the key of its tokens and cookies.
    pub secret: Option<SecretString>,
    /// Tokens in the forms of earlier versions are accepted.
    pub legacy_tokens: bool,
    /// A token may be sent as the password of Basic credentials.
    pub basic_tokens: bool,
    /// What the unit puts behind a password before it hashes it with SHA-256.
    pub password_salt: SecretString,
    /// How long answers of a cell's directory are remembered.
    pub directory_cache: Duration,
    /// Whose JSON Web Tokens are accepted.
    pub web_tokens: Option<WebTokenSettings>,
}

/// Reads credentials and judges them.
pub(crate) struct Auth {
    agreement: Agreement,
    directory: Directory,
    passwords: Passwords,
    web_tokens: Option<WebTokens>,
}

impl Auth {
    pub(crate) fn new(settings: AuthSettings, database: &Database) -> Self {
        Self {
            agreement: Agreement {
                master_token: settings.master_token,
                key: settings.secret.and_then(Key::new),
                of_old: settings.legacy_tokens,
                basic_tokens: settings.basic_tokens,
                web_tokens: settings.web_tokens.is_some(),
            },
            directory: Directory::new(database.clone(), settings.directory_cache),
            passwords: Passwords::new(database.clone(), settings.password_salt),
            web_tokens: settings.web_tokens.map(WebTokens::new),
        }
    }

    /// Finds out who is asking the cell with this URL, or the unit when there is none.
    pub(crate) fn caller(&self, request: &Incoming, unit: &UnitSettings, cell: Option<&str>) -> Caller {
        let issuers = Issuers { cell, unit: &unit.url(), unit_host: &unit.fqdn };
        Caller {
            principal: credentials::read(request, &self.agreement, &issuers, Utc::now()),
            // Browsers would ask their users for a password.
            offer_basic: self.agreement.basic_tokens && !request.headers.contains_key("origin"),
        }
    }

    /// Judges whether somebody may do everything with a cell.
    async fn judge(&self, principal: &Principal, cell: &Cell, url: &str) -> Result<(), Refusal> {
        let nothing = Scopes::These(Vec::new());
        let everything = Scopes::All;
        let mut roles = Vec::new();
        // Why not, and what for, if the ACL admits everybody.
        let (reason, scopes) = match principal {
            Principal::UnitMaster => return Ok(()),
            Principal::Anonymous => (ErrorCode::AuthorizationRequired, &nothing),
            Principal::Invalid(reason) => (*reason, &nothing),
            Principal::Password(basic) => match self.passwords.fault(cell, basic).await? {
                Some(reason) => (reason, &nothing),
                None => (ErrorCode::AuthorizationRequired, &everything),
            },
            Principal::WebToken(token) => match self.web_token(token, Some(url)).await? {
                Ok(true) => return Ok(()),
                Ok(false) => (ErrorCode::PrivilegeLacking, &nothing),
                Err(reason) => (reason, &nothing),
            },
            Principal::Known(Known { roles: of, scopes }) => {
                match of {
                    Roles::None => {}
                    Roles::Urls(urls) => roles.clone_from(urls),
                    Roles::Account(name) => match self.directory.account(cell, url, name).await? {
                        Some(urls) => roles.extend(urls.iter().cloned()),
                        None => return Err(Refusal::Code(ErrorCode::AuthorizationRequired)),
                    },
                }
                (ErrorCode::PrivilegeLacking, scopes)
            }
        };
        if !self.directory.roots(cell, url).await?.admit(roles.iter()) {
            return Err(Refusal::Code(reason));
        }
        match scopes.contain(ROOT) {
            true => Ok(()),
            false => Err(Refusal::Error(ApiError::with(ErrorCode::ScopeLacking, &[ROOT]))),
        }
    }

    /// Verifies a JSON Web Token: whether it gives everything with the cell, or why it is not accepted.
    async fn web_token(&self, token: &SecretString, cell: Option<&str>) -> Result<Result<bool, ErrorCode>, ApiError> {
        let Some(web_tokens) = &self.web_tokens else { return Ok(Err(ErrorCode::TokenParse)) };
        match web_tokens.gives_root(token, cell.unwrap_or_default()).await {
            Ok(gives) => Ok(Ok(gives)),
            Err(Refused::Invalid(reason)) => Ok(Err(reason)),
            Err(Refused::Unknown) => Err(ApiError::for_now(ErrorCode::KeysUnavailable, "10")),
        }
    }
}

/// Why not.
enum Refusal {
    /// 401 comes with a challenge.
    Code(ErrorCode),
    Error(ApiError),
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

impl Caller {
    /// The answer to somebody who was refused; `realm` is the URL that a challenge names.
    fn refused(&self, refusal: Refusal, realm: &str) -> ApiError {
        match refusal {
            Refusal::Error(error) => error,
            Refusal::Code(code) if code.status() != 401 => code.into(),
            Refusal::Code(code) => {
                let error = ApiError::from(code).header(WWW_AUTHENTICATE, &format!("Bearer realm=\"{realm}\""));
                match self.offer_basic {
                    true => error.header(WWW_AUTHENTICATE, &format!("Basic realm=\"{realm}\"")),
                    false => error,
                }
            }
        }
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
    /// Judges: the unit master first, then the cell's ACL, then scopes.
    ///
    /// # Errors
    /// 401 with a challenge when the credentials are absent or invalid, 403 when they do not suffice.
    pub(crate) async fn prove(auth: &Auth, caller: &Caller, cell: Cell, url: String) -> Result<Self, ApiError> {
        match auth.judge(&caller.principal, &cell, &url).await {
            Ok(()) => Ok(Self { cell, url }),
            Err(refusal) => Err(caller.refused(refusal, &url)),
        }
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
    pub(crate) async fn prove(auth: &Auth, caller: &Caller, url: String) -> Result<Self, ApiError> {
        let code = match &caller.principal {
            Principal::UnitMaster => return Ok(Self { url }),
            Principal::Known(_) => ErrorCode::UnitUserRequired,
            Principal::Anonymous => ErrorCode::AuthorizationRequired,
            Principal::Invalid(reason) => *reason,
            Principal::Password(_) => ErrorCode::BasicAuthentication,
            Principal::WebToken(token) => match auth.web_token(token, None).await? {
                Ok(_) => ErrorCode::UnitUserRequired,
                Err(reason) => reason,
            },
        };
        Err(caller.refused(Refusal::Code(code), &url))
    }
}
