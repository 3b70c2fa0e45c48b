// Shows the description of the interface, openapi.json beside this page, to people.

const METHODS = ["get", "head", "post", "put", "delete", "options", "patch", "trace"];
/** Where a method stands that OpenAPI 3.1 does not know: as of 3.2, or before it. */
const MORE_METHODS = ["additionalOperations", "x-additionalOperations"];
/** How deep schemas are shown within each other; what lies deeper is named. */
const DEPTH = 6;
/** Longest wait for the description. */
const ANSWER_MS = 30_000;

const main = document.getElementById("main");

function element(name, content, className) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...(Array.isArray(content) ? content : [content]).filter((part) => part !== undefined && part !== null));
  return made;
}

function link(target, words, className) {
  const made = element("a", words, className);
  made.href = target;
  return made;
}

let description;

/** Follows a reference within the document. */
function resolved(value) {
  for (let hops = 0; value?.$ref?.startsWith("#/") && hops < DEPTH; hops += 1) {
    const path = value.$ref.slice(2).split("/").map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~"));
    value = path.reduce((at, part) => at?.[part], description);
  }
  return value ?? {};
}

const nameOf = (schema) => schema?.$ref?.split("/").pop();
const schemaAnchor = (name) => `schema-${name}`;

/** The paragraphs of a text: what stands between backquotes is code, error codes lead to their table. */
const paragraphs = (text) => (text ?? "").split(/\n{2,}/).filter(Boolean).map((words) => element("p", marked(words)));

function marked(words) {
  return words.split(/(`[^`]+`|PR\d{3}-[A-Z]{2}-\d{4})/).filter(Boolean).map((part) => {
    if (part.startsWith("`") && part.length > 1) return element("code", part.slice(1, -1));
    return /^PR\d{3}-[A-Z]{2}-\d{4}$/.test(part) ? link(`#${part}`, part) : part;
  });
}

/** The type of a schema in a few words, the names of others as links. */
function typeOf(schema, depth = 0) {
  if (schema === true || schema === undefined) return ["anything"];
  if (schema === false) return ["nothing"];
  const name = nameOf(schema);
  if (name) return [link(`#${schemaAnchor(name)}`, name)];
  const several = schema.oneOf ?? schema.anyOf ?? (schema.allOf?.length > 0 ? schema.allOf : undefined);
  if (several && depth < DEPTH) {
    return several.flatMap((part, index) => [...(index ? [schema.allOf ? " and " : " or "] : []), ...typeOf(part, depth + 1)]);
  }
  if ("const" in schema) return [element("code", JSON.stringify(schema.const))];
  if (schema.enum) return schema.enum.flatMap((value, index) => [...(index ? [", "] : []), element("code", JSON.stringify(value))]);
  const types = [schema.type ?? "anything"].flat();
  if (types.includes("array") && depth < DEPTH) return ["list of ", ...typeOf(schema.items, depth + 1)];
  const words = types.join(" or ");
  return [schema.format ? `${words} (${schema.format})` : words];
}

const RULES = {
  minimum: "at least #", maximum: "at most #", minLength: "at least # characters", maxLength: "at most # characters",
  minItems: "at least # items", maxItems: "at most # items", pattern: "pattern #", default: "#, unless said otherwise",
};

/** The limits of a schema in a line. */
function rules(schema) {
  const said = Object.entries(RULES).filter(([rule]) => schema?.[rule] !== undefined);
  if (said.length === 0) return undefined;
  return element("p", said.flatMap(([rule, words], index) => {
    const [before, after] = words.split("#");
    return [index ? "; " : "", before, element("code", String(schema[rule])), after];
  }), "hint");
}

function table(heads, rows, className) {
  const head = element("tr", heads.map((words) => {
    const cell = element("th", words);
    cell.scope = "col";
    return cell;
  }));
  return element("table", [element("thead", head), element("tbody", rows)], className);
}

function tableRow(title, ...cells) {
  const head = element("th", title);
  head.scope = "row";
  return element("tr", [head, ...cells.map((cell) => element("td", cell))]);
}

const needed = (is) => (is ? element("p", "required", "needed") : undefined);
const described = (of) => [...paragraphs(of?.description), rules(of?.schema ?? of)].filter(Boolean);

function properties(schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, of]) => tableRow(
    [element("code", name), needed(schema.required?.includes(name))],
    [element("p", typeOf(of)), ...described(of)],
  ));
  return rows.length > 0 ? table(["Member", "What it is"], rows) : undefined;
}

function code(value) {
  const shown = element("pre", element("code", typeof value === "string" ? value : JSON.stringify(value, null, 2)));
  // What scrolls must be reached by keyboard too.
  shown.tabIndex = 0;
  return shown;
}

/** The examples of something, put away until somebody wants them. */
function examples(of) {
  // Of a media type or a parameter they have names, of a schema they are a list.
  const given = Array.isArray(of.examples) ? of.examples.map((value) => ({ value })) : Object.values(of.examples ?? {}).map(resolved);
  const all = [...(of.example === undefined ? [] : [{ value: of.example }]), ...given];
  if (all.length === 0) return [];
  const shown = all.flatMap(({ summary, value }) => [summary ? element("p", summary, "hint") : undefined, code(value)]);
  return [element("details", [element("summary", all.length === 1 ? "Example" : `${all.length} examples`), ...shown])];
}

/** The media types of a body, each with its schema and examples. */
function content(of) {
  return Object.entries(of ?? {}).flatMap(([mediaType, media]) => [
    element("p", [element("code", mediaType), media.schema ? " – " : "", ...(media.schema ? typeOf(media.schema) : [])]),
    ...(media.schema && !nameOf(media.schema) ? [properties(media.schema)].filter(Boolean) : []),
    ...examples(media),
    ...(media.schema && !nameOf(media.schema) ? examples(media.schema) : []),
  ]);
}

function responseRow(status, given) {
  const response = resolved(given);
  const headers = Object.entries(response.headers ?? {}).map(([name, header]) => {
    const of = resolved(header);
    return element("p", [element("code", name), ...(of.description ? [" – ", ...marked(of.description)] : [])], "hint");
  });
  const codes = (response["x-error-codes"] ?? []).flatMap((code, index) => {
    const name = code.code ?? code;
    return [index ? ", " : "", link(`#${name}`, name)];
  });
  return tableRow(
    element("code", status),
    [
      ...paragraphs(response.description),
      codes.length > 0 ? element("p", codes) : undefined,
      ...headers,
      ...content(response.content),
    ].filter(Boolean),
  );
}

function operationSection({ id, method, path, operation, shared }) {
  const parameters = [...shared, ...(operation.parameters ?? [])].map(resolved);
  const section = element("section", [
    element("h3", [element("span", method.toUpperCase(), `method ${method.toLowerCase()}`), element("span", path, "path")]),
    operation.summary ? element("p", operation.summary) : undefined,
    ...paragraphs(operation.description),
  ], "card operation");
  section.id = id;
  if (parameters.length > 0) {
    section.append(element("h4", "Parameters"), table(["Name", "What it is"], parameters.map((of) => tableRow(
      [element("code", of.name), element("p", `in the ${of.in}`, "hint"), needed(of.required)],
      [element("p", of.schema ? typeOf(of.schema) : ""), ...described(of), ...examples(of)],
    ))));
  }
  const body = operation.requestBody && resolved(operation.requestBody);
  if (body) {
    section.append(element("h4", body.required ? "Body (required)" : "Body"), ...paragraphs(body.description), ...content(body.content));
  }
  const responses = Object.entries(operation.responses ?? {});
  const answers = (some) => table(["Status", "What it means"], some.map(([status, of]) => responseRow(status, of)));
  const good = responses.filter(([status]) => status < "400");
  const bad = responses.filter(([status]) => status >= "400");
  if (good.length > 0) section.append(element("h4", "Answers"), answers(good));
  if (bad.length > 0) {
    // Most are the same everywhere.
    const summary = element("summary", `Errors: ${bad.map(([status]) => status).join(", ")}`);
    section.append(element("details", [summary, answers(bad)], "errors"));
  }
  return section;
}

function operations() {
  return Object.entries(description.paths ?? {}).flatMap(([path, given]) => {
    const item = resolved(given);
    const more = MORE_METHODS.flatMap((name) => Object.entries(item[name] ?? {}));
    const all = [...METHODS.filter((method) => item[method]).map((method) => [method, item[method]]), ...more];
    return all.map(([method, operation]) => ({
      path, method, operation, shared: item.parameters ?? [],
      id: operation.operationId ?? `${method}-${path.replace(/[^\w]+/g, "-")}`,
    }));
  });
}

function schemaSection([name, schema]) {
  const section = element("section", [
    element("h3", name), ...paragraphs(schema.description),
    element("p", ["A ", ...typeOf(schema)], "hint"), properties(schema), ...examples(schema),
  ], "card schema");
  section.id = schemaAnchor(name);
  return section;
}

function codesSection(codes) {
  const rows = codes.map(({ code, status, text }) => {
    const row = tableRow(link(`#${code}`, element("code", code)), String(status), text);
    row.id = code;
    return row;
  });
  const section = element("section", [element("h2", "Error codes"), table(["Code", "Status", "Text"], rows, "codes")], "card");
  section.id = "error-codes";
  return section;
}

function contents(all, schemas, codes) {
  const groups = Map.groupBy(all, ({ operation }) => operation.tags?.[0] ?? "");
  const about = new Map((description.tags ?? []).map(({ name, description: words }) => [name, words]));
  const parts = [...groups].flatMap(([tag, members]) => [
    tag ? element("h3", [tag, ...(about.get(tag) ? [" – ", ...marked(about.get(tag))] : [])]) : undefined,
    element("ul", members.map(({ id, method, path, operation }) => element("li", link(`#${id}`, [
      element("span", method.toUpperCase(), `method ${method.toLowerCase()}`), element("span", path, "path"),
      element("span", operation.summary ?? "", "hint"),
    ])))),
  ]);
  const rest = [
    ...(schemas.length > 0 ? [element("li", link("#schemas", "Schemas"))] : []),
    ...(codes.length > 0 ? [element("li", link("#error-codes", "Error codes"))] : []),
  ];
  const nav = element("nav", [element("h2", "Contents"), ...parts, element("h3", "More"), element("ul", rest)], "card");
  nav.setAttribute("aria-label", "Contents");
  return nav;
}

function credentials() {
  const schemes = Object.entries(description.components?.securitySchemes ?? {});
  if (schemes.length === 0) return undefined;
  return element("section", [
    element("h2", "Credentials"),
    table(["Name", "What it is"], schemes.map(([name, given]) => {
      const of = resolved(given);
      const kind = [of.type, of.scheme, of.in && `in the ${of.in}`, of.name].filter(Boolean).join(", ");
      return tableRow(element("code", name), [element("p", kind), ...paragraphs(of.description)]);
    })),
  ], "card");
}

function servers() {
  return (description.servers ?? []).map(({ url, description: words }) =>
    element("p", ["Server: ", element("code", url), words ? ` – ${words}` : ""], "hint"));
}

async function show() {
  const answer = await fetch("openapi.json", { signal: AbortSignal.timeout(ANSWER_MS), credentials: "omit" });
  if (!answer.ok) throw new Error(`the service answers with ${answer.status}`);
  description = await answer.json();
  const { info = {} } = description;
  const all = operations();
  const schemas = Object.entries(description.components?.schemas ?? {});
  const codes = description["x-error-codes"] ?? [];
  document.getElementById("title").textContent = `${info.title ?? "cell-export"} ${info.version ?? ""}`;
  document.title = `Interface – ${info.title ?? "cell-export"}`;
  const schemasTitle = element("h2", "Schemas");
  schemasTitle.id = "schemas";
  main.replaceChildren(
    element("section", [...paragraphs(info.description), ...servers()], "card"),
    contents(all, schemas, codes),
    ...[credentials()].filter(Boolean),
    element("h2", "Requests"),
    ...all.map(operationSection),
    ...(schemas.length > 0 ? [schemasTitle, ...schemas.map(schemaSection)] : []),
    ...(codes.length > 0 ? [codesSection(codes)] : []),
  );
  // The anchor was not there yet when the browser looked for it; set anew, it is also marked.
  if (location.hash) location.replace(location.hash);
}

show().catch((error) => {
  document.getElementById("state").textContent = `The description cannot be shown: ${error.message}.`;
});
