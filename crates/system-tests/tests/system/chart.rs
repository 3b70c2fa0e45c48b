//! The Helm chart: rendered by helm, read by Kubernetes' schemas, and what must hold of it whatever the values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Command;

use model::metrics;
use serde_json::{Value, json};
use system_tests::judge::skipped;
use system_tests::manifests::{self, API_MEMORY, SECRETS, WORKER_MEMORY};

/// The chart's own value files.
const VALUES: [&str; 3] = ["s3", "directory", "everything"];

fn values(name: &str) -> String {
    manifests::path(&format!("deploy/helm/cell-export/ci/{name}-values.yaml")).display().to_string()
}

/// What helm makes of one of them, as text and as documents; nothing without helm.
fn rendered(name: &str) -> Option<(String, Vec<Value>)> {
    let Some(text) = manifests::render(&["--values", &values(name)]) else {
        skipped("helm is not installed");
        return None;
    };
    let text = text.unwrap();
    let documents = manifests::yaml(&text);
    Some((text, documents))
}

fn name(document: &Value) -> &str {
    document["metadata"]["name"].as_str().unwrap()
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

/// Every pod that anything makes: who makes it, and its specification.
fn pods(documents: &[Value]) -> BTreeMap<String, &Value> {
    let pod = |document: &'static str| move |value: &Value| value["kind"] == document;
    let templates = documents.iter().filter(|d| pod("Deployment")(d) || pod("Job")(d));
    let made = templates.map(|d| (format!("{} {}", d["kind"], name(d)), &d["spec"]["template"]["spec"]));
    made.chain(of_kind(documents, "Pod").into_iter().map(|d| (format!("pod {}", name(d)), &d["spec"]))).collect()
}

fn environment(container: &Value) -> Vec<(String, String)> {
    let variables = container["env"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().expect("every value is a text").to_owned();
    variables.map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
}

#[test]
fn kubernetes_takes_every_manifest() {
    for values_file in VALUES {
        let Some((text, documents)) = rendered(values_file) else { return };
        let mut helm = manifests::checker("helm").unwrap();
        helm.args(["lint", "--strict", "--values", &values(values_file)]);
        let output = helm.arg(manifests::path("deploy/helm/cell-export")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        // The oldest version that the chart says it is for, and the newest there is a schema of. Unknown fields fail.
        for version in ["1.30.0", "1.37.0"] {
            let mut validate = manifests::checker("kubernetes-validate").unwrap();
            validate.args(["--strict", "--no-warn", "--kubernetes-version", version, "-"]);
            let output = manifests::feed(validate, &text);
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{values_file}, Kubernetes {version}: {said}");
            let core = documents.iter().filter(|d| !d["apiVersion"].as_str().unwrap().contains(".com/"));
            let core = core.filter(|d| d["kind"] != "ScaledObject").count();
            assert_eq!(said.matches(" passed for resource ").count(), core, "{said}");
        }
    }
}

/// Types and required fields of what is not Kubernetes' own; unknown fields are not found.
#[test]
fn operators_take_their_resources() {
    let Some((_, documents)) = rendered("everything") else { return };
    let custom: Vec<&Value> =
        ["ScaledObject", "PodMonitor", "PrometheusRule"].iter().flat_map(|kind| of_kind(&documents, kind)).collect();
    assert_eq!(custom.len(), 3);
    let modules = manifests::path(".local/checkers/node");
    if Command::new("node").arg("--version").output().is_err() || !modules.join("node_modules").exists() {
        return skipped("node, or the models of custom resources, are not installed");
    }
    let check = |resources: &[&Value]| {
        let mut node = Command::new("node");
        node.current_dir(&modules).args(["--input-type=module", "--eval", CUSTOM_RESOURCES]);
        manifests::feed(node, &serde_json::to_string(resources).unwrap())
    };
    let output = check(&custom);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut broken = custom[0].clone();
    broken["spec"]["minReplicaCount"] = json!("two");
    assert!(!check(&[&broken]).status.success(), "the check finds a wrong type");
}

const CUSTOM_RESOURCES: &str = r#"
    import { readFileSync } from "node:fs";
    const packages = { "keda.sh": "keda", "monitoring.coreos.com": "prometheus-operator" };
    for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
        const [group] = resource.apiVersion.split("/");
        const models = await import(`@kubernetes-models/${packages[group]}/${resource.apiVersion}/${resource.kind}`);
        new models[resource.kind](resource).validate();
    }
"#;

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    for (set, where_it_is) in [
        ("unit.fqdn=", "/unit/fqdn"),
        ("unit.scheme=ftp", "/unit/scheme"),
        ("unit.port=70000", "/unit/port"),
        ("storage.s3.bucket=", "/storage/s3/bucket"),
        ("storage.kind=directory", "/storage/directory/snapshotsClaim"),
        ("storage.kind=floppy", "/storage/kind"),
        ("storage.s3.endpoint=s3.example", "/storage/s3/endpoint"),
        ("autoscaling.kind=keda", "/autoscaling/keda/prometheus"),
        ("autoscaling.minReplicas=0", "/autoscaling/minReplicas"),
        ("worker.replicas=0", "/worker/replicas"),
        ("worker.slots=65", "/worker/slots"),
        ("worker.replica=3", "'replica'"),
        ("worker.settings.DATABASE_URL=postgres://u:p@h/d", "DATABASE_URL"),
        ("worker.settings.DRAIN_SECS=5000", "DRAIN_SECS"),
        ("worker.settings.lower=1", "lower"),
        ("worker.secretKeys={AMQP_URL}", "/worker/secretKeys"),
        ("api.resources.limits=null", "/api/resources"),
        ("image.api.digest=latest", "/image/api/digest"),
        ("ingress.enabled=true", "/ingress/hosts"),
        ("networkPolicy.clients=null", "clients"),
        ("networkPolicy.monitoring={}", "/networkPolicy/monitoring"),
        ("anything=else", "'anything'"),
    ] {
        let Some(outcome) = manifests::render(&["--values", &values("s3"), "--set", set]) else {
            return skipped("helm is not installed");
        };
        match outcome {
            Ok(_) => panic!("{set} is taken"),
            Err(said) => assert!(said.contains(where_it_is), "{set}: {said}"),
        }
    }
}

#[test]
fn pods_may_do_what_they_need_and_nothing_else() {
    for values_file in VALUES {
        let Some((_, documents)) = rendered(values_file) else { return };
        let pods = pods(&documents);
        assert!(pods.len() >= 4, "{values_file}: {:?}", pods.keys());
        for (who, pod) in pods {
            let who = format!("{values_file}: {who}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{who}");
            assert_eq!(pod["enableServiceLinks"], false, "{who}");
            for shares in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod[shares].is_null(), "{who}");
            }
            let security = &pod["securityContext"];
            assert_eq!((&security["runAsNonRoot"], &security["runAsUser"]), (&json!(true), &json!(10001)), "{who}");
            assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{who}");
            for volume in pod["volumes"].as_array().unwrap() {
                assert!(volume["hostPath"].is_null(), "{who}");
            }
            for container in pod["containers"].as_array().unwrap() {
                let expected = json!({
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                });
                assert_eq!(container["securityContext"], expected, "{who}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{who}");
                assert!(!container["image"].as_str().unwrap().ends_with(":latest"), "{who}");
            }
        }
    }
}

#[test]
fn services_are_watched_have_room_and_may_finish() {
    for values_file in VALUES {
        let Some((_, documents)) = rendered(values_file) else { return };
        let deployments = of_kind(&documents, "Deployment");
        assert_eq!(deployments.len(), 2);
        for deployment in deployments {
            let (who, pod) = (name(deployment), &deployment["spec"]["template"]["spec"]);
            let container = &pod["containers"][0];
            for (probe, path) in
                [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
            {
                assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "internal"}), "{who}");
            }
            let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
            let settings: BTreeMap<String, String> = environment(container).into_iter().collect();
            let memory = manifests::bytes(container["resources"]["limits"]["memory"].as_str().unwrap());
            if who.ends_with("-api") {
                let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
                assert!(grace > pause + model::limits::DRAIN.as_secs(), "{who}: {grace}");
                assert!(memory >= API_MEMORY, "{who}: {memory} < {API_MEMORY}");
            } else {
                let drain: u64 = settings["DRAIN_SECS"].parse().unwrap();
                assert!(grace > drain + model::limits::STOP_GRACE.as_secs(), "{who}: {grace} for {drain}");
                let slots: u64 = settings["WORKER_SLOTS"].parse().unwrap();
                assert!(memory >= slots * WORKER_MEMORY, "{who}: {memory} < {slots} × {WORKER_MEMORY}");
            }
            // What is scaled by something else has no number of its own: an upgrade would reset it.
            let scaled = values_file != "s3" && who.ends_with("-worker");
            assert_eq!(deployment["spec"]["replicas"].is_null(), scaled, "{values_file}: {who}");
        }
    }
}

#[test]
fn settings_are_ones_that_the_services_read_and_secrets_are_files() {
    for values_file in VALUES {
        let Some((_, documents)) = rendered(values_file) else { return };
        for (who, pod) in pods(&documents) {
            let container = &pod["containers"][0];
            let service = if who.contains("worker") { "exporter-worker" } else { "api" };
            let given = environment(container);
            manifests::assert_known(&who, service, given.iter().map(|(name, _)| name.as_str()));
            let mounted: BTreeSet<String> = pod["volumes"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|volume| volume["secret"]["items"].as_array())
                .flatten()
                .map(|item| format!("/run/secrets/cell-export/{}", item["path"].as_str().unwrap()))
                .collect();
            for (variable, value) in &given {
                assert!(!SECRETS.contains(&variable.as_str()), "{who}: {variable} is a secret");
                assert!(!variable.ends_with("_FILE") || mounted.contains(value), "{who}: {value} is not mounted");
            }
            // The settings are complete and well-formed: the service itself says so.
            if !who.starts_with("\"Job\"") {
                let directory = tempfile::tempdir().unwrap();
                manifests::check_config(service, &given, directory.path());
            }
        }
    }
}

#[test]
fn nothing_reaches_a_pod_that_is_not_named() {
    let Some((_, documents)) = rendered("s3") else { return };
    let policies = of_kind(&documents, "NetworkPolicy");
    let denied: Vec<&&Value> =
        policies.iter().filter(|p| p["spec"]["ingress"].is_null() && p["spec"]["egress"].is_null()).collect();
    assert_eq!(denied.len(), 1);
    let everybody = &denied[0]["spec"]["podSelector"]["matchLabels"];
    for document in &documents {
        let labels = match document["kind"].as_str().unwrap() {
            "Deployment" | "Job" => &document["spec"]["template"]["metadata"]["labels"],
            "Pod" => &document["metadata"]["labels"],
            _ => continue,
        };
        for (label, value) in everybody.as_object().unwrap() {
            assert_eq!(&labels[label], value, "{}", name(document));
        }
        let component = labels["app.kubernetes.io/component"].as_str().unwrap();
        let own = policies.iter().filter(|policy| {
            let selector = &policy["spec"]["podSelector"];
            let one = &selector["matchLabels"]["app.kubernetes.io/component"];
            let several = &selector["matchExpressions"][0]["values"];
            one == component || several.as_array().is_some_and(|values| values.contains(&json!(component)))
        });
        let ports: BTreeSet<String> = own
            .flat_map(|policy| policy["spec"]["egress"].as_array().unwrap())
            .flat_map(|rule| rule["ports"].as_array().unwrap())
            .map(|port| port["port"].to_string())
            .collect();
        let expected = if component == "migrate" { vec!["53", "5432"] } else { vec!["443", "53", "5432", "5672"] };
        assert_eq!(ports.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{component}");
    }
    // The internal port is in no Service, and only those who monitor reach it.
    for service in of_kind(&documents, "Service") {
        for port in service["spec"]["ports"].as_array().unwrap() {
            assert_eq!(port["targetPort"], "http");
        }
    }
    for rule in policies.iter().filter_map(|policy| policy["spec"]["ingress"].as_array()).flatten() {
        if rule["ports"][0]["port"] == "internal" {
            assert_eq!(
                rule["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
                "monitoring"
            );
        }
    }
}

#[test]
fn alerts_dashboard_and_scaling_are_the_ones_of_this_version() {
    let Some((_, documents)) = rendered("everything") else { return };
    let rules = of_kind(&documents, "PrometheusRule");
    assert_eq!(vec![rules[0]["spec"].clone()], manifests::yaml(&manifests::text("deploy/prometheus/alerts.yml")));
    let dashboard = of_kind(&documents, "ConfigMap")[0]["data"]["cell-export.json"].as_str().unwrap();
    assert_eq!(dashboard, manifests::text("deploy/grafana/cell-export.json"));
    let scaler = of_kind(&documents, "ScaledObject")[0];
    let worker = of_kind(&documents, "Deployment").into_iter().find(|d| name(d).ends_with("-worker")).unwrap();
    assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], name(worker));
    let query = scaler["spec"]["triggers"][0]["metadata"]["query"].as_str().unwrap();
    let known: Vec<&str> = metrics::ALL.iter().map(|(name, ..)| *name).collect();
    let words: Vec<&str> = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let named: Vec<&&str> = words.iter().filter(|word| word.starts_with("cellexport_")).collect();
    assert_eq!(named.len(), 2);
    assert!(named.iter().all(|name| known.contains(*name)), "{query}");
    if Command::new("promtool").arg("--version").output().is_err() {
        return skipped("promtool is not installed");
    }
    // Prometheus reads the query, too: as a rule.
    let mut rule = String::from("groups:\n- name: scaling\n  rules:\n  - record: workers_wanted\n    expr: ");
    writeln!(rule, "{}", serde_json::to_string(query).unwrap()).unwrap();
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(file.path(), rule).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
