//! Looks at what only the broker's management interface tells: policies and alarms.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{Doctor, Finding, in_a_thread};
use crate::limits;
use crate::topology::Topology;

/// Policy and alarms, when the management interface is given.
pub(super) async fn examine(doctor: &mut Doctor, url: Option<&SecretString>, vhost: String, topology: &Topology) {
    let Some(url) = url else {
        return doctor.skip(
            &["queue policy", "broker alarms"],
            "only the management interface tells: set AMQP_MANAGEMENT_URL, http://USER:PASSWORD@HOST:15672",
        );
    };
    let (asked, jobs, dead) = (url.clone(), topology.jobs.clone(), topology.dead_exchange.clone());
    let looking = in_a_thread(move || {
        let path = format!("/api/queues/{}/{}", encoded(&vhost), encoded(&jobs));
        ask(&asked, &path).map_or_else(|finding| finding, |queue| policy(&queue, &dead))
    });
    doctor.look("queue policy", looking).await;
    let asked = url.clone();
    let looking = in_a_thread(move || ask(&asked, "/api/nodes").map_or_else(|finding| finding, |nodes| alarms(&nodes)));
    doctor.look("broker alarms", looking).await;
}

/// One question; a finding when there is no answer.
fn ask(url: &SecretString, path: &str) -> Result<Value, Finding> {
    let config = ureq::Agent::config_builder().timeout_global(Some(limits::MANAGEMENT)).max_redirects(0);
    let agent = config.http_status_as_error(false).build().new_agent();
    let refused = |seen: String, advice: &str| Finding::fault(seen, advice);
    // Errors of the library may repeat the URL, which has a password in it.
    let answer = agent.get(format!("{}{path}", url.expose_secret().trim_end_matches('/'))).call();
    let Ok(mut answer) = answer else {
        return Err(refused(
            "the management interface does not answer".to_owned(),
            "rabbitmq-plugins enable rabbitmq_management, or correct AMQP_MANAGEMENT_URL",
        ));
    };
    match answer.status().as_u16() {
        200 => {}
        401 => {
            return Err(refused(
                "it does not know this user or password".to_owned(),
                "correct AMQP_MANAGEMENT_URL; the user needs the tag monitoring",
            ));
        }
        404 => return Err(refused(format!("{path} is not there"), "import deploy/rabbitmq/definitions.json")),
        status => return Err(refused(format!("it answers {status}"), "look at the log of the broker")),
    }
    let text = answer.body_mut().with_config().limit(limits::MANAGEMENT_ANSWER).read_to_vec().ok();
    text.and_then(|text| serde_json::from_slice(&text).ok())
        .ok_or_else(|| refused("it answers something else than JSON".to_owned(), "correct AMQP_MANAGEMENT_URL"))
}

/// In a path every byte but letters and digits can be encoded.
fn encoded(name: &str) -> String {
    name.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Compares the policy of the queue of doorbells with that of `deploy/rabbitmq/definitions.json`.
fn policy(queue: &Value, dead_exchange: &str) -> Finding {
    const ADVICE: &str = "import deploy/rabbitmq/definitions.json, or rabbitmqctl set_policy with what stands there";
    if queue["type"] != "quorum" {
        return Finding::fault(
            format!("the queue is of type {}, not quorum", queue["type"]),
            "rabbitmqctl delete_queue, then import deploy/rabbitmq/definitions.json; nothing is lost with a queue",
        );
    }
    let policy = &queue["effective_policy_definition"];
    let numbers = ["delivery-limit", "message-ttl", "max-length"].into_iter().filter(|key| !policy[*key].is_u64());
    let mut missing: Vec<&str> = numbers.collect();
    missing.extend((policy["overflow"] != "reject-publish").then_some("overflow"));
    if !missing.is_empty() {
        return Finding::fault(format!("not in force: {}", missing.join(", ")), ADVICE);
    }
    match policy["dead-letter-exchange"] == json!(dead_exchange) {
        true => Finding::ok(policy.to_string()),
        false => Finding::warning("rejected messages are dropped: there is no dead-letter-exchange", ADVICE),
    }
}

/// Looks for alarms of any node: they block who publishes.
fn alarms(nodes: &Value) -> Finding {
    let nodes: Vec<&Value> = nodes.as_array().into_iter().flatten().collect();
    let alarm = |node: &&&Value| ["mem_alarm", "disk_free_alarm"].iter().any(|alarm| node[*alarm] == true);
    match nodes.iter().find(alarm) {
        Some(node) => Finding::fault(
            format!("{} has an alarm: it takes no messages", node["name"]),
            "give it space or memory: `rabbitmq-diagnostics alarms` says which; meanwhile workers poll",
        ),
        None if nodes.is_empty() => Finding::skipped("the user may not see the nodes: give it the tag monitoring"),
        None => Finding::ok(format!("none, {} nodes", nodes.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn what_the_definitions_say_is_what_is_wanted() {
        let definitions = include_str!("../../../../deploy/rabbitmq/definitions.json");
        let definitions: Value = serde_json::from_str(definitions).expect("JSON");
        let queue = json!({"type": "quorum", "effective_policy_definition": definitions["policies"][0]["definition"]});
        assert_eq!(policy(&queue, "cellexport.dead").verdict, Verdict::Ok);
        assert_eq!(policy(&queue, "other.dead").verdict, Verdict::Warning);
        for key in ["delivery-limit", "message-ttl", "max-length", "overflow"] {
            let mut queue = queue.clone();
            queue["effective_policy_definition"].as_object_mut().expect("an object").remove(key);
            let finding = policy(&queue, "cellexport.dead");
            assert_eq!((finding.verdict, finding.seen), (Verdict::Fault, format!("not in force: {key}")));
        }
        let classic = json!({"type": "classic"});
        assert_eq!(policy(&classic, "cellexport.dead").verdict, Verdict::Fault);
    }

    #[test]
    fn an_alarm_of_any_node_is_one() {
        let nodes =
            json!([{"name": "a", "mem_alarm": false}, {"name": "b", "mem_alarm": false, "disk_free_alarm": true}]);
        assert_eq!(alarms(&nodes).verdict, Verdict::Fault);
        assert_eq!(alarms(&json!([{"name": "a", "mem_alarm": false}])).verdict, Verdict::Ok);
        assert_eq!(alarms(&json!([])).verdict, Verdict::Skipped);
    }

    #[test]
    fn a_vhost_may_have_any_name() {
        assert_eq!((encoded("/").as_str(), encoded("a-b").as_str()), ("%2F", "a%2Db"));
    }
}
