//! The description of the whole interface, OpenAPI 3.1, made from the route table, the table of error codes, the limits and
//! the types of the answers.
//!
//! What a request does is decided by [`routes::action`]; every action it knows is described here, so a new one cannot be
//! forgotten. OpenAPI 3.1 has no PROPFIND: it stands under `x-additionalOperations`, as OpenAPI 3.2 will have it.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use model::error_code::{ErrorBody, ErrorCode};
use model::job::{JobKind, JobState};
use model::job_report::{JobList, JobReport};
use model::limits;
use model::settings::UnitSettings;
use model::status_report::StatusReport;
use model::store::job_resources::Family;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use crate::routes::{self, Action, UnitAction};

/// Every path below a cell, with its methods.
const CELL_PATHS: &[(&str, &[&str])] = &[
    ("__export", &["GET", "POST"]),
    ("__export/jobs", &["GET"]),
    ("__export/jobs/{id}", &["GET", "DELETE"]),
    ("__export/jobs/{id}/events", &["GET"]),
    ("__export/ui", &["GET"]),
    ("__import", &["GET", "POST"]),
    ("__import/dry-run", &["GET", "POST"]),
    ("__import/jobs", &["GET"]),
    ("__import/jobs/{id}", &["GET", "DELETE"]),
    ("__import/jobs/{id}/events", &["GET"]),
    ("__snapshot", &["PROPFIND"]),
    ("__snapshot/{file}", &["GET", "HEAD", "PUT", "DELETE", "PROPFIND"]),
];

/// Every path below the unit's `__ctl`, with its methods.
const UNIT_PATHS: &[(&str, &[&str])] = &[("Cell", &["GET", "POST"]), ("Cell('{name}')", &["GET", "DELETE"])];

/// Answers with the description.
pub(crate) fn answer(unit: &UnitSettings) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-cache"))
        .content_type("application/json")
        .body(document(unit).to_string())
}

/// What is said of one method of one path.
struct Operation {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Vec<(u16, Value)>,
    errors: Vec<ErrorCode>,
}

fn document(unit: &UnitSettings) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let mut paths = Map::new();
    // In one of its forms, a URL has the cell in its path.
    let cell = if unit.path_based { "/{cell}/" } else { "/" };
    for (path, methods) in CELL_PATHS {
        let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
        let mut item = Map::new();
        for method in *methods {
            let Ok(action) = routes::action(&segments, method) else { continue };
            let mut operation = cell_operation(&action, &mut schemas);
            if unit.path_based {
                operation.parameters.insert(0, path_parameter("cell", "Name of the cell.", CELL));
            }
            operation.errors.extend(CELL_ERRORS);
            place(&mut item, method, operation.value());
        }
        paths.insert(format!("{cell}{path}"), Value::Object(item));
    }
    for (path, methods) in UNIT_PATHS {
        let mut item = Map::new();
        for method in *methods {
            let Ok(action) = routes::unit_action(&[(*path).to_owned()], method) else { continue };
            let mut operation = unit_operation(&action);
            operation.errors.extend(UNIT_ERRORS);
            place(&mut item, method, operation.value());
        }
        if !unit.path_based {
            item.insert("servers".into(), json!([{ "url": unit.url() }]));
        }
        paths.insert(format!("/__ctl/{path}"), Value::Object(item));
    }
    schemas.subschema_for::<ErrorBody>();
    let mut definitions = schemas.take_definitions(true);
    definitions.insert("Problem".into(), problem_schema());
    let url = unit.url();
    let servers = if unit.path_based {
        json!([{ "url": url.trim_end_matches('/') }])
    } else {
        let host = format!("{}://{{cell}}.{}", unit.scheme, unit.authority());
        json!([{ "url": host, "variables": { "cell": { "default": "cell", "description": "Name of the cell." } } }])
    };
    let codes: Vec<Value> = ErrorCode::ALL
        .iter()
        .map(|code| json!({ "code": code.code(), "status": code.status(), "text": code.text() }))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "cell-export",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Exports, keeps, hands out and imports snapshots of Personium cells. Requests that change \
                something at length are answered at once and become jobs, which can be watched, waited for and cancelled.",
        },
        "servers": servers,
        "security": [{ "bearer": [] }, { "basic": [] }, { "cookie": [] }],
        "tags": [
            { "name": "exports", "description": "Making snapshots of a cell." },
            { "name": "imports", "description": "Making a cell what a snapshot says." },
            { "name": "snapshots", "description": "The snapshot area of a cell. A finished export is `NAME.zip` here, one that failed is `NAME.error`." },
            { "name": "page", "description": "All of this for people, in a browser." },
            { "name": "cells", "description": "The cells of the unit; for the unit master." },
        ],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "A token of the unit, or the unit master's." },
                "basic": { "type": "http", "scheme": "basic", "description": "Name and password of an account of the cell." },
                "cookie": { "type": "apiKey", "in": "cookie", "name": "p_cookie", "description": "With the parameter `p_cookie_peer` in the query." },
            },
        },
        "x-error-codes": codes,
    })
}

fn place(item: &mut Map<String, Value>, method: &str, operation: Value) {
    if method == "PROPFIND" {
        let others = item.entry("x-additionalOperations").or_insert_with(|| json!({}));
        others[method] = operation;
    } else {
        item.insert(method.to_ascii_lowercase(), operation);
    }
}

const CELL: &str = "^[a-zA-Z0-9][a-zA-Z0-9_-]{0,127}$";
const NAME: &str = "^[a-zA-Z0-9_-]{1,192}$";

/// What any request can be told.
const COMMON_ERRORS: &[ErrorCode] = &[
    ErrorCode::UrlAuthority,
    ErrorCode::RequestKey,
    ErrorCode::HeaderValue,
    ErrorCode::AuthorizationRequired,
    ErrorCode::TokenExpired,
    ErrorCode::AuthenticationScheme,
    ErrorCode::TokenParse,
    ErrorCode::UnknownUri,
    ErrorCode::MethodNotAllowed,
    ErrorCode::NotAcceptable,
    ErrorCode::Unknown,
    ErrorCode::DatastoreUnknown,
    ErrorCode::DatastoreUnavailable,
];

/// What any request to a cell can be told besides.
const CELL_ERRORS: &[ErrorCode] = &[
    ErrorCode::PathBasedUrl,
    ErrorCode::BasicFormat,
    ErrorCode::RefreshToken,
    ErrorCode::TokenSignature,
    ErrorCode::CookieAuthentication,
    ErrorCode::BasicTooSoon,
    ErrorCode::BasicAuthentication,
    ErrorCode::PrivilegeLacking,
    ErrorCode::ScopeLacking,
    ErrorCode::CellNotFound,
    ErrorCode::KeysUnavailable,
];

/// What any request to the unit can be told besides.
const UNIT_ERRORS: &[ErrorCode] = &[ErrorCode::ODataKey, ErrorCode::UnitUserRequired, ErrorCode::NoSuchEntitySet];

/// What a request with a body can be told of it.
const BODY_ERRORS: &[ErrorCode] =
    &[ErrorCode::BodyTimeout, ErrorCode::BodyTooLarge, ErrorCode::MediaType, ErrorCode::BodyRead];

/// What whoever asks for a job can be told.
const ORDER_ERRORS: &[ErrorCode] = &[
    ErrorCode::JsonParse,
    ErrorCode::FieldFormat,
    ErrorCode::CellBusy,
    ErrorCode::FileExists,
    ErrorCode::CellInUse,
    ErrorCode::KeyReused,
    ErrorCode::TooManyRequests,
];

impl Operation {
    fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self { id, tag, summary, parameters: Vec::new(), body: None, answers: Vec::new(), errors: Vec::new() }
    }

    fn takes(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self.fails(BODY_ERRORS)
    }

    fn answers(mut self, status: u16, answer: Value) -> Self {
        self.answers.push((status, answer));
        self
    }

    fn fails(mut self, errors: &[ErrorCode]) -> Self {
        self.errors.extend(errors);
        self
    }

    fn value(mut self) -> Value {
        self.errors.extend(COMMON_ERRORS);
        self.parameters.push(header_parameter(
            "X-Personium-RequestKey",
            "Goes into the log, to find the request again.",
            json!({ "type": "string", "pattern": "^[a-zA-Z0-9_-]{1,128}$" }),
        ));
        let mut responses = Map::new();
        for (status, answer) in self.answers {
            responses.insert(status.to_string(), answer);
        }
        self.errors.sort_by_key(|code| code.code());
        self.errors.dedup();
        for errors in self.errors.chunk_by(|a, b| a.status() == b.status()) {
            responses.insert(errors[0].status().to_string(), error_answer(errors));
        }
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "parameters": self.parameters,
            "responses": responses,
        });
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        operation
    }
}

fn cell_operation(action: &Action, schemas: &mut SchemaGenerator) -> Operation {
    match action {
        Action::ExportStatus => Operation::new("exportStatus", "exports", "What an export of the cell is doing")
            .takes(prefer())
            .answers(200, with_headers(status_report(schemas), &[APPLIED])),
        Action::Export => order(
            Operation::new("export", "exports", "Ask for a snapshot of the cell"),
            json!({ "required": false, "content": named_body(false) }),
            schemas,
        )
        .fails(&[ErrorCode::TooManyChildren, ErrorCode::DiskFull]),
        Action::ImportStatus(kind) => {
            let (id, summary) = match kind {
                JobKind::DryRun => ("dryRunStatus", "What a dry run is doing, or found"),
                JobKind::Import | JobKind::Export => ("importStatus", "What an import is doing, or why it failed"),
            };
            Operation::new(id, "imports", summary)
                .takes(prefer())
                .answers(200, with_headers(status_report(schemas), &[APPLIED]))
        }
        Action::Import(kind) => {
            let (id, summary) = match kind {
                JobKind::DryRun => ("dryRun", "Ask what an import would change"),
                JobKind::Import | JobKind::Export => ("import", "Make the cell what a snapshot in its area says"),
            };
            let body = json!({ "required": true, "content": named_body(true) });
            order(Operation::new(id, "imports", summary), body, schemas).fails(&[
                ErrorCode::RequiredKey,
                ErrorCode::SnapshotEntryMissing,
                ErrorCode::SnapshotVersion,
                ErrorCode::SnapshotNotZip,
                ErrorCode::SnapshotFaulty,
                ErrorCode::NotFound,
                ErrorCode::FileUnavailable,
            ])
        }
        Action::ListJobs(family) => {
            let (id, tag, summary) = match family {
                Family::Exports => ("listExportJobs", "exports", "The cell's exports, newest first"),
                Family::Imports => ("listImportJobs", "imports", "The cell's imports and dry runs, newest first"),
            };
            let limit = json!({
                "type": "integer", "minimum": 1, "maximum": limits::JOBS_PER_PAGE_MAX, "default": limits::JOBS_PER_PAGE,
            });
            Operation::new(id, tag, summary)
                .takes(query_parameter("limit", "Jobs of one page.", limit))
                .takes(query_parameter(
                    "after",
                    "Where the page begins, as `next` gives it.",
                    json!({ "type": "string" }),
                ))
                .answers(
                    200,
                    with_headers(
                        json_answer("A page of jobs.", schemas.subschema_for::<JobList>().to_value()),
                        &[NEXT],
                    ),
                )
                .fails(&[ErrorCode::ODataQuery])
        }
        Action::Job(family, _) => {
            let (id, tag) = family_names(*family, "exportJob", "importJob");
            Operation::new(id, tag, "A job")
                .takes(job_id())
                .takes(prefer())
                .takes(header_parameter(
                    "If-None-Match",
                    "The ETag of what the client has.",
                    json!({ "type": "string" }),
                ))
                .answers(200, with_headers(job_answer("The job.", schemas), &[ETAG, APPLIED]))
                .answers(304, with_headers(json!({ "description": "The client has it." }), &[ETAG]))
                .fails(&[ErrorCode::JobNotFound])
        }
        Action::CancelJob(family, _) => {
            let (id, tag) = family_names(*family, "cancelExport", "cancelImport");
            Operation::new(id, tag, "Cancel a job")
                .takes(job_id())
                .answers(204, json!({ "description": "It is cancelled." }))
                .answers(202, with_headers(job_answer("Its worker was told, and will stop.", schemas), &[MONITOR]))
                .fails(&[ErrorCode::JobNotFound, ErrorCode::JobEnded])
        }
        Action::JobEvents(family, _) => {
            let (id, tag) = family_names(*family, "exportEvents", "importEvents");
            let last = json!({ "type": "string", "pattern": "^[0-9]+$" });
            // One event of the stream.
            let events = json!({
                "type": "object",
                "properties": {
                    "event": { "enum": ["progress", "end"], "description": "`end` is the last one." },
                    "id": { "type": "string", "pattern": "^[0-9]+$" },
                    "data": { "type": "string", "contentMediaType": "application/json", "description": "The job." },
                },
            });
            Operation::new(id, tag, "A job's progress as server-sent events, until it ends")
                .takes(job_id())
                .takes(header_parameter("Last-Event-ID", "The last event that arrived.", last))
                .answers(
                    200,
                    json!({ "description": "The events.", "content": { "text/event-stream": { "schema": events } } }),
                )
                .answers(204, json!({ "description": "The job has ended, and there is nothing left to tell." }))
                .fails(&[ErrorCode::JobNotFound, ErrorCode::TooManyRequests])
        }
        Action::ListArea => propfind(Operation::new("listSnapshots", "snapshots", "List the snapshot area")),
        Action::DescribeFile(_) => {
            propfind(Operation::new("describeSnapshot", "snapshots", "Describe a file").takes(file_name()))
                .fails(&[ErrorCode::NotFound])
        }
        Action::Download(_) => {
            let content = json!({ "*/*": { "schema": { "description": "The bytes." } } });
            let ranges = json!({ "type": "string", "examples": ["bytes=0-1023"] });
            Operation::new("download", "snapshots", "A file of the area: whole, or in ranges")
                .takes(file_name())
                .takes(header_parameter("Range", "The part that is wanted (RFC 9110, section 14).", ranges))
                .takes(header_parameter(
                    "If-Range",
                    "The part only if the file is still this one.",
                    json!({ "type": "string" }),
                ))
                .takes(header_parameter(
                    "If-None-Match",
                    "The ETag of what the client has.",
                    json!({ "type": "string" }),
                ))
                .answers(200, with_headers(json!({ "description": "The file.", "content": content }), FILE_HEADERS))
                .answers(206, with_headers(json!({ "description": "A part of it.", "content": content }), FILE_HEADERS))
                .answers(304, with_headers(json!({ "description": "The client has it." }), &[ETAG]))
                .takes(header_parameter(
                    "Prefer",
                    "`no-redirect`: the bytes, and no link to them.",
                    json!({ "type": "string", "examples": ["no-redirect"] }),
                ))
                .answers(307, with_headers(json!({ "description": "Get it from the bucket." }), &[BUCKET_LINK]))
                .fails(&[ErrorCode::NotFound, ErrorCode::RangeNotSatisfiable, ErrorCode::FileUnavailable])
        }
        Action::DownloadHead(_) => {
            Operation::new("downloadHead", "snapshots", "What a download would answer, without its bytes")
                .takes(file_name())
                .takes(header_parameter(
                    "If-None-Match",
                    "The ETag of what the client has.",
                    json!({ "type": "string" }),
                ))
                .answers(200, with_headers(json!({ "description": "The file is there." }), FILE_HEADERS))
                .answers(304, with_headers(json!({ "description": "The client has it." }), &[ETAG]))
                .fails(&[ErrorCode::NotFound])
        }
        Action::Upload(_) => {
            let any = json!({ "schema": { "type": "string", "format": "binary" } });
            Operation::new("upload", "snapshots", "Put a snapshot into the area")
                .takes(file_name())
                .takes(header_parameter("If-Match", "Replace only this one; `*` is any.", json!({ "type": "string" })))
                .takes(header_parameter("If-None-Match", "`*`: only if there is none.", json!({ "type": "string" })))
                .body(
                    json!({ "required": true, "content": { "application/zip": any, "application/octet-stream": any } }),
                )
                .answers(201, with_headers(json!({ "description": "It is there." }), &[ETAG]))
                .answers(204, with_headers(json!({ "description": "It replaced the one that was there." }), &[ETAG]))
                .fails(&[
                    ErrorCode::FieldFormat,
                    ErrorCode::TooManyChildren,
                    ErrorCode::NotFound,
                    ErrorCode::CellBusy,
                    ErrorCode::EtagMismatch,
                    ErrorCode::FilesIo,
                    ErrorCode::TooManyRequests,
                    ErrorCode::DiskFull,
                    ErrorCode::QuotaExceeded,
                ])
        }
        Action::Delete(_) => Operation::new("remove", "snapshots", "Remove a file from the area")
            .takes(file_name())
            .takes(header_parameter("If-Match", "Only this one; `*` is any.", json!({ "type": "string" })))
            .answers(204, json!({ "description": "It is gone." }))
            .fails(&[ErrorCode::NotFound, ErrorCode::CellBusy, ErrorCode::EtagMismatch]),
        Action::Options(_) | Action::FileOptions(..) => {
            Operation::new("options", "snapshots", "The methods of a resource")
                .answers(200, json!({ "description": "In `Allow`." }))
        }
        Action::Page(_) => Operation::new("page", "page", "A page for people, who give it a token")
            .answers(
                200,
                json!({ "description": "The page.", "content": { "text/html": { "schema": { "type": "string" } } } }),
            )
            .answers(304, json!({ "description": "The reader has it." })),
        Action::NotImplemented => {
            Operation::new("report", "snapshots", "Not implemented").fails(&[ErrorCode::NotImplemented])
        }
    }
}

fn unit_operation(action: &UnitAction) -> Operation {
    let name = || path_parameter("name", "Name of the cell.", CELL);
    let entity = || json_answer("The cell.", json!({ "type": "object", "required": ["d"] }));
    match action {
        UnitAction::ListCells => {
            let number = |most: u64| json!({ "type": "integer", "minimum": 0, "maximum": most });
            Operation::new("listCells", "cells", "The cells of the unit, by name")
                .takes(query_parameter("$top", "So many of them.", number(100)))
                .takes(query_parameter("$skip", "Without the first so many.", number(100_000)))
                .takes(query_parameter(
                    "$inlinecount",
                    "`allpages`: also how many there are.",
                    json!({ "enum": ["allpages", "none"] }),
                ))
                .answers(200, json_answer("The cells.", json!({ "type": "object", "required": ["d"] })))
                .fails(&[ErrorCode::ODataQuery])
        }
        UnitAction::CreateCell => {
            let schema = json!({
                "type": "object",
                "required": ["Name"],
                "properties": { "Name": { "type": "string", "pattern": CELL } },
                "additionalProperties": false,
            });
            Operation::new("createCell", "cells", "Make an empty cell")
                .body(json!({ "required": true, "content": { "application/json": { "schema": schema } } }))
                .answers(201, entity())
                .fails(&[
                    ErrorCode::ODataJson,
                    ErrorCode::ODataRequired,
                    ErrorCode::ODataField,
                    ErrorCode::ODataUnknownField,
                    ErrorCode::EntityExists,
                ])
        }
        UnitAction::DescribeCell(_) => Operation::new("describeCell", "cells", "A cell")
            .takes(name())
            .answers(200, entity())
            .fails(&[ErrorCode::NoSuchEntity]),
        UnitAction::DeleteCell(_) => Operation::new("deleteCell", "cells", "Remove a cell with everything in it")
            .takes(name())
            .takes(header_parameter("If-Match", "Only this one; `*` is any.", json!({ "type": "string" })))
            .answers(204, json!({ "description": "It is gone." }))
            .fails(&[ErrorCode::NoSuchEntity, ErrorCode::CellBusy, ErrorCode::EtagMismatch]),
        UnitAction::Options(_) => Operation::new("unitOptions", "cells", "The methods of a resource")
            .answers(200, json!({ "description": "In `Allow`." })),
    }
}

/// A request that becomes a job.
fn order(operation: Operation, body: Value, schemas: &mut SchemaGenerator) -> Operation {
    let key = json!({ "type": "string", "minLength": 1, "maxLength": limits::IDEMPOTENCY_KEY, "pattern": "^[ -~]+$" });
    let what = "The same key and body name the same job, however often they are sent.";
    operation
        .takes(prefer())
        .takes(header_parameter("Idempotency-Key", what, key))
        .body(body)
        .answers(200, with_headers(job_answer("With `Prefer: wait`: the job has ended.", schemas), &[MONITOR, APPLIED]))
        .answers(
            202,
            with_headers(json!({ "description": "It is accepted." }), &[LOCATION, MONITOR, RETRY_AFTER, APPLIED]),
        )
        .fails(ORDER_ERRORS)
}

fn propfind(operation: Operation) -> Operation {
    let depth = json!({ "enum": ["0", "1"] });
    operation
        .takes(json!({ "name": "Depth", "in": "header", "required": true, "schema": depth }))
        .body(json!({ "required": false, "content": { "application/xml": { "schema": { "type": "string" } } } }))
        .answers(207, json!({ "description": "A `multistatus` (RFC 4918).", "content": { "application/xml": { "schema": { "type": "string" } } } }))
        .fails(&[ErrorCode::XmlParse, ErrorCode::Depth, ErrorCode::InfiniteDepth])
}

fn family_names(family: Family, exports: &'static str, imports: &'static str) -> (&'static str, &'static str) {
    match family {
        Family::Exports => (exports, "exports"),
        Family::Imports => (imports, "imports"),
    }
}

fn named_body(required: bool) -> Value {
    let mut schema = json!({
        "type": "object",
        "properties": { "Name": { "type": "string", "pattern": NAME, "description": "Of the snapshot, without extension." } },
    });
    if required {
        schema["required"] = json!(["Name"]);
    }
    // Clients of old send JSON as text.
    json!({ "application/json": { "schema": schema, "examples": { "named": { "value": { "Name": "backup" } } } } })
}

fn status_report(schemas: &mut SchemaGenerator) -> Value {
    json_answer("The status, in Personium's words.", schemas.subschema_for::<StatusReport>().to_value())
}

fn job_answer(description: &str, schemas: &mut SchemaGenerator) -> Value {
    let mut answer = json_answer(description, schemas.subschema_for::<JobReport>().to_value());
    answer["content"]["application/json"]["examples"] = json!({ "running": { "value": example_job() } });
    answer
}

/// A job in the middle of its work.
fn example_job() -> Value {
    let url = "https://unit.example/cell/__export/jobs/0192f0c1-7f0e-4a55-b3a1-3f3e1f7d2f10";
    json!({
        "id": "0192f0c1-7f0e-4a55-b3a1-3f3e1f7d2f10", "kind": JobKind::Export.name(), "name": "backup",
        "state": JobState::Running.name(), "attempt": 1, "cancel_requested": false, "queue_position": null, "percent": 42,
        "documents": { "done": 8400, "total": 20000 }, "files": { "done": 0, "total": 31 },
        "bytes": { "done": 5210330, "total": 12400000 }, "bytes_per_second": 2605165,
        "accepted_at": "2026-11-24T10:00:00.123Z", "started_at": "2026-11-24T10:00:00.140Z",
        "heartbeat_at": "2026-11-24T10:00:02.141Z", "estimated_end": "2026-11-24T10:00:04.903Z", "finished_at": null,
        "error": null, "size": null, "sha256": null, "file": null, "result": null, "self": url, "events": format!("{url}/events"),
    })
}

fn json_answer(description: &str, schema: Value) -> Value {
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

/// The answer with one of these codes, each as an example; all have one status.
fn error_answer(errors: &[ErrorCode]) -> Value {
    let examples: Map<String, Value> = errors
        .iter()
        .map(|error| {
            let body = serde_json::to_value(error.body()).unwrap_or_default();
            (error.code().to_owned(), json!({ "summary": error.text(), "value": body }))
        })
        .collect();
    let codes: Vec<&str> = errors.iter().map(|error| error.code()).collect();
    let mut answer = json!({
        "description": codes.join(", "),
        "content": {
            "application/json": { "schema": { "$ref": "#/components/schemas/ErrorBody" }, "examples": examples },
            "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } },
        },
    });
    match errors[0].status() {
        401 => answer = with_headers(answer, &[CHALLENGE]),
        503 => answer = with_headers(answer, &[RETRY_AFTER]),
        _ => {}
    }
    answer
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "A problem document (RFC 9457), for clients that ask for one with `Accept`.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": { "type": "string", "format": "uri" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "code": { "type": "string", "pattern": "^PR[0-9]{3}-[A-Z]{2}-[0-9]{4}$" },
        },
    })
}

/// A header of an answer: its name and what it says.
type Header = (&'static str, &'static str);

const LOCATION: Header = ("Location", "URL of the status.");
const MONITOR: Header = ("Link", "URL of the job, with `rel=\"monitor\"`.");
const NEXT: Header = ("Link", "URL of the next page, with `rel=\"next\"`, if there is one.");
const RETRY_AFTER: Header = ("Retry-After", "When to look again, in seconds.");
const APPLIED: Header = ("Preference-Applied", "`wait=N` when the answer was held.");
const BUCKET_LINK: Header =
    ("Location", "Where the bytes are, for a quarter of an hour; with `S3_DOWNLOADS=redirect`.");
const ETAG: Header = ("ETag", "Another one when something changes.");
const CHALLENGE: Header = ("WWW-Authenticate", "How to authenticate.");
const FILE_HEADERS: &[Header] = &[
    ETAG,
    ("Last-Modified", "When it was saved."),
    ("Accept-Ranges", "`bytes`"),
    ("Repr-Digest", "SHA-256 of the whole file (RFC 9530)."),
    ("Content-Disposition", "`attachment` with its name."),
    ("Cache-Control", "`no-store`"),
    ("X-Content-Type-Options", "`nosniff`"),
    ("Content-Range", "Which part it is, with 206."),
];

fn with_headers(mut answer: Value, headers: &[Header]) -> Value {
    for (name, what) in headers {
        answer["headers"][*name] = json!({ "description": what, "schema": { "type": "string" } });
    }
    answer
}

fn path_parameter(name: &str, description: &str, pattern: &str) -> Value {
    let schema = json!({ "type": "string", "pattern": pattern });
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
}

fn query_parameter(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema })
}

fn header_parameter(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema })
}

fn file_name() -> Value {
    path_parameter("file", "`NAME.zip`, or `NAME.error` of a failed export.", r"^[a-zA-Z0-9_-]{1,192}\.(zip|error)$")
}

fn job_id() -> Value {
    let schema = json!({ "type": "string", "format": "uuid" });
    json!({ "name": "id", "in": "path", "required": true, "description": "Id of the job.", "schema": schema })
}

fn prefer() -> Value {
    let what = format!("`wait=N`: hold the answer for up to N seconds, at most {}.", limits::WAIT_LONGEST.as_secs());
    header_parameter("Prefer", &what, json!({ "type": "string", "examples": ["wait=30"] }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn unit(path_based: bool) -> UnitSettings {
        UnitSettings { scheme: "https".to_owned(), fqdn: "unit.example".to_owned(), port: None, path_based }
    }

    /// Every operation, its path and method.
    fn operations(document: &Value) -> Vec<(String, String, Value)> {
        let paths = document["paths"].as_object().expect("paths");
        let methods = |path: &str, item: &Value| -> Vec<(String, String, Value)> {
            let item = item.as_object().expect("an item");
            let own = item.iter().filter(|(_, operation)| operation["operationId"].is_string());
            let others = item.get("x-additionalOperations").and_then(Value::as_object).into_iter().flatten();
            own.chain(others).map(|(m, o)| (path.to_owned(), m.to_uppercase(), o.clone())).collect()
        };
        paths.iter().flat_map(|(path, item)| methods(path, item)).collect()
    }

    #[test]
    fn every_documented_method_is_there_and_no_other_is() {
        let document = document(&unit(true));
        let all = operations(&document);
        let documented: HashSet<_> = all.iter().map(|(path, method, _)| (path.as_str(), method.as_str())).collect();
        assert_eq!(documented.len(), all.len());
        for (path, _) in CELL_PATHS {
            let segments: Vec<_> = path.split('/').map(str::to_owned).collect();
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "PROPFIND", "MKCOL", "LOCK"] {
                let full = format!("/{{cell}}/{path}");
                // What has GET has HEAD; it is told apart where it is of use.
                let there = routes::action(&segments, method).is_ok()
                    && (method != "HEAD" || documented.contains(&(full.as_str(), "HEAD")));
                assert_eq!(documented.contains(&(full.as_str(), method)), there, "{method} {path}");
            }
        }
        let ids: HashSet<_> = all.iter().map(|(_, _, operation)| operation["operationId"].to_string()).collect();
        assert_eq!(ids.len(), all.len(), "ids are unique");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_code_is_used_or_of_a_job() {
        for path_based in [true, false] {
            let document = document(&unit(path_based));
            let text = document.to_string();
            for reference in text.split("\"$ref\":\"#").skip(1) {
                let pointer = reference.split('"').next().expect("an end");
                assert!(document.pointer(pointer).is_some(), "{pointer}");
            }
            let unused: Vec<_> = ErrorCode::ALL
                .iter()
                .filter(|code| !text.contains(&format!("\"{}\":{{\"summary\"", code.code())))
                .map(|code| code.code())
                .collect();
            // These end a job, and stand in `NAME.error`; REPORT is a method that nobody sends.
            let of_jobs = [
                "PR409-EX-0001",
                "PR500-DV-0001",
                "PR500-DV-0002",
                "PR500-SV-0001",
                "PR501-MC-0001",
                "PR503-EX-0001",
                "PR503-EX-0002",
            ];
            assert_eq!(unused, of_jobs);
        }
    }
}
