//! `{unit}__ctl/Cell`: makes, lists, describes and removes cells (Personium's API reference, pages 100 to 102 and 104).
//! A new cell is empty, and there to be imported into.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Payload;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::cell::{CellId, CellName};
use model::error_code::ErrorCode;
use model::limits;
use model::store::cells::{self, Deleting, ListedCell, NewCell};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::auth::UnitMaster;
use crate::body;
use crate::common::incoming::Incoming;
use crate::error::ApiError;
use crate::odata::{self, CellEntity, ListOptions};
use crate::state::State;

/// Makes an empty cell without an owner (page 100).
pub(crate) async fn create(
    state: &State,
    master: &UnitMaster,
    request: &Incoming,
    payload: &mut Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::read(payload, limits::JSON_BODY).await?;
    let name = new_name(body::decoded(&request.headers, &body)?.as_deref())?;
    let new = empty_cell(name, (state.now)().timestamp_millis())?;
    let made = CellEntity::read(ListedCell { name: new.name.to_string(), document: new.document.clone() });
    let name = new.name.clone();
    let creating =
        state.database.ask(async move |connection: &mut PgConnection| match cells::create(connection, &new).await? {
            true => Ok(()),
            false => Err(ApiError::from(ErrorCode::EntityExists)),
        });
    creating.await?;
    tracing::info!(cell.name = %name, "cell made");
    Ok(odata::entity(StatusCode::CREATED, &made, &master.url))
}

/// Lists cells by name (page 101).
pub(crate) async fn list(state: &State, master: &UnitMaster, request: &Incoming) -> Result<HttpResponse, ApiError> {
    let options = ListOptions::read(&request.query)?;
    let reading = state.database.ask(async move |connection: &mut PgConnection| {
        let count = if options.count { Some(cells::count(connection).await?) } else { None };
        Ok::<_, ApiError>((cells::list(connection, options.skip, options.top).await?, count))
    });
    let (listed, count) = reading.await?;
    let listed: Vec<_> = listed.into_iter().map(CellEntity::read).collect();
    Ok(odata::list(&listed, count, &master.url))
}

/// Describes a cell (page 102).
pub(crate) async fn describe(state: &State, master: &UnitMaster, name: &str) -> Result<HttpResponse, ApiError> {
    let name = CellName::parse(name).ok_or(ErrorCode::NoSuchEntity)?;
    let reading = state.database.ask(async move |connection: &mut PgConnection| found(connection, &name).await);
    Ok(odata::entity(StatusCode::OK, &reading.await?, &master.url))
}

/// Removes a cell with all it holds and with its snapshots (page 104).
pub(crate) async fn delete(
    state: &State,
    _master: &UnitMaster,
    name: &str,
    request: &Incoming,
) -> Result<HttpResponse, ApiError> {
    let name = CellName::parse(name).ok_or(ErrorCode::NoSuchEntity)?;
    let (removed, if_match) = (name.clone(), request.condition("if-match"));
    let removing = state.database.ask(async move |connection: &mut PgConnection| {
        let cell = found(connection, &removed).await?;
        if if_match.is_some_and(|wanted| wanted != "*" && wanted != cell.etag()) {
            return Err(ErrorCode::EtagMismatch.into());
        }
        match cells::delete(connection, &removed).await? {
            Deleting::Deleted => Ok(()),
            Deleting::Unknown => Err(ErrorCode::NoSuchEntity.into()),
            Deleting::Busy(kind) => Err(ApiError::busy(kind)),
        }
    });
    removing.await?;
    tracing::info!(cell.name = %name, "cell removed");
    Ok(odata::done())
}

async fn found(connection: &mut PgConnection, name: &CellName) -> Result<CellEntity, ApiError> {
    let cell = cells::describe(connection, name).await?.ok_or(ErrorCode::NoSuchEntity)?;
    Ok(CellEntity::read(cell))
}

/// Reads the body of a creation; nothing when it is no text.
fn new_name(body: Option<&str>) -> Result<CellName, ApiError> {
    let Some(Ok(Value::Object(mut fields))) = body.map(serde_json::from_str) else {
        return Err(ErrorCode::ODataJson.into());
    };
    let name = match fields.remove("Name") {
        None | Some(Value::Null) => return Err(ApiError::with(ErrorCode::ODataRequired, &["Name"])),
        Some(Value::String(name)) => CellName::parse_new(&name),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    let name = name.ok_or_else(|| ApiError::with(ErrorCode::ODataField, &["Name"]))?;
    match fields.keys().next() {
        None => Ok(name),
        Some(unknown) => Err(ApiError::with(ErrorCode::ODataUnknownField, &[unknown])),
    }
}

/// A new cell in the form in which units store theirs: the cell document, and the metadata of the root of its files.
fn empty_cell(name: CellName, now: i64) -> Result<NewCell, ErrorCode> {
    let id = || URL_SAFE_NO_PAD.encode(Uuid::new_v4());
    let cell = id();
    let document = json!({
        "_index": "u0_ad.cell",
        "_type": "Cell",
        "_source": {
            "p": now, "a": {}, "s": { "Name": name.as_str() }, "d": {}, "u": now, "h": {}, "l": {}, "type": "Cell",
        },
        "_id": cell,
    });
    let root = json!({ "p": now, "cs": "normal", "a": {}, "d": {}, "t": "Cell", "u": now, "v": 1, "i": id() });
    let id = CellId::parse(&cell).ok_or(ErrorCode::Unknown)?;
    Ok(NewCell { id, name, document: document.to_string(), root_pmeta: root.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_cell_is_what_a_snapshot_may_hold() {
        let name = CellName::parse_new("cell-1").expect("a legal name");
        let cell = empty_cell(name, 1_640_995_200_000).expect("made");
        assert_eq!(cell.id.as_str().len(), 22);
        let expected = format!(
            r#"{{"_index":"u0_ad.cell","_type":"Cell","_source":{{"p":1640995200000,"a":{{}},"s":{{"Name":"cell-1"}},"d":{{}},"u":1640995200000,"h":{{}},"l":{{}},"type":"Cell"}},"_id":"{}"}}"#,
            cell.id
        );
        assert_eq!(cell.document, expected);
        let root: Value = serde_json::from_str(&cell.root_pmeta).expect("JSON");
        assert_eq!((&root["t"], &root["cs"], &root["v"]), (&json!("Cell"), &json!("normal"), &json!(1)));
        assert_eq!(root["i"].as_str().map(str::len), Some(22));
    }
}
