//! `api token mint` and `api token show`: tokens for operators. Neither prints the unit's secret.

use std::time::Duration;

use chrono::{DateTime, Utc};
use model::cell::CellName;
use model::limits;
use model::settings::UnitSettings;
use secrecy::SecretString;

use super::cipher::Key;
use super::token::{Kind, Token};

/// Why a command cannot do what it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The secret is not set.
    #[error("UNIT_SECRET16 (or UNIT_SECRET16_FILE) must be set")]
    NoSecret,
    /// No cell can have the name.
    #[error("--cell must be the name of a cell")]
    Cell,
    /// No account can have the name.
    #[error("--account must be the name of an account: no control characters, not empty")]
    Account,
    /// A scope that cannot stand in a token.
    #[error("--scope must be words of printable ASCII")]
    Scope,
    /// A life that is too long.
    #[error("--ttl must be at most ten years")]
    Life,
    /// The text is no token that this unit issued.
    #[error("this is no token that was issued under UNIT_SECRET16")]
    NoToken,
}

/// Makes an access token for an account of a cell, as the unit's token endpoint would.
///
/// # Errors
/// When there is no secret, or what is asked for cannot stand in a token.
pub fn mint(
    unit: &UnitSettings,
    secret: Option<SecretString>,
    cell: &str,
    account: &str,
    scopes: &[String],
    life: Duration,
) -> Result<String, TokenError> {
    let key = secret.and_then(Key::new).ok_or(TokenError::NoSecret)?;
    let cell = CellName::parse(cell).ok_or(TokenError::Cell)?;
    if account.is_empty() || account.chars().any(char::is_control) {
        return Err(TokenError::Account);
    }
    if !scopes.iter().all(|scope| !scope.is_empty() && scope.bytes().all(|b| b.is_ascii_graphic())) {
        return Err(TokenError::Scope);
    }
    let life = Some(life).filter(|life| *life <= limits::TOKEN_LIFE_MAX).ok_or(TokenError::Life)?;
    let token = Token {
        kind: Kind::Resident,
        issued: Utc::now().timestamp_millis(),
        life: i64::try_from(life.as_millis()).map_err(|_| TokenError::Life)?,
        subject: account.to_owned(),
        schema: String::new(),
        scopes: Some(scopes.to_vec()),
        issuer: unit.cell_url(cell.as_str()),
        extras: Vec::new(),
    };
    Ok(token.write(&key))
}

/// Tells what a token says, in lines.
///
/// # Errors
/// When there is no secret, or the text is no token under it.
pub fn show(secret: Option<SecretString>, text: &str) -> Result<String, TokenError> {
    let key = secret.and_then(Key::new).ok_or(TokenError::NoSecret)?;
    let token = Token::read_any(text.trim(), &key).ok_or(TokenError::NoToken)?;
    let kind = match token.kind {
        Kind::Resident => "access token of an account",
        Kind::Visitor => "access token of a visitor",
        Kind::UnitUser => "access token of a unit user (opens no cell)",
        Kind::PasswordChange => "token to change a password with (opens no cell)",
        Kind::ResidentRefresh => "refresh token of an account (opens nothing)",
        Kind::VisitorRefresh => "refresh token of a visitor (opens nothing)",
        Kind::GrantCode => "grant code (opens nothing)",
    };
    let time =
        |millis: i64| DateTime::from_timestamp_millis(millis).map_or_else(|| "never".to_owned(), |t| t.to_rfc3339());
    let state = if token.is_expired(Utc::now().timestamp_millis()) { "expired" } else { "valid" };
    let scopes = match &token.scopes {
        None => "everything (a token of old)".to_owned(),
        Some(scopes) if scopes.is_empty() => "none".to_owned(),
        Some(scopes) => scopes.join(" "),
    };
    let mut lines = vec![
        format!("kind     {kind}"),
        format!("issuer   {}", token.issuer),
        format!("subject  {}", token.subject),
        format!("scopes   {scopes}"),
        format!("issued   {}", time(token.issued)),
        format!("expires  {} ({state})", token.expiry().map_or_else(|| "never".to_owned(), time)),
    ];
    if !token.schema.is_empty() {
        lines.push(format!("schema   {}", token.schema));
    }
    lines.extend(token.roles().iter().map(|role| format!("role     {role}")));
    Ok(lines.join("\n"))
}
