//! Looks at the broker: what the protocol itself can tell, and the rest by its management interface where that is given.

use lapin::options::{
    BasicGetOptions, BasicNackOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPHardError, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{Confirmation, Connection, ExchangeKind};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::rights::Service;
use super::{Doctor, Finding, management};
use crate::doorbell::{self, BrokerError};
use crate::error_chain::Chain;
use crate::message::Bell;
use crate::settings::BrokerSettings;
use crate::topology::Topology;

const IMPORT: &str = "import deploy/rabbitmq/definitions.json, or let a service whose user may declare start once";

/// Looks at the broker as a service finds it. Without it the services work, and workers find jobs by polling.
pub async fn examine(
    doctor: &mut Doctor,
    settings: &BrokerSettings,
    management: Option<&SecretString>,
    service: Service,
) {
    let topology = Topology::new(&settings.prefix);
    let mut connection = None;
    let reaching = async {
        match doorbell::connect(settings, "cell-export doctor").await {
            Ok(open) => {
                connection = Some(open);
                Finding::ok(place(settings))
            }
            Err(error) => unreachable(&error),
        }
    };
    doctor.look("broker", reaching).await;
    let reads: &[&'static str] = if service == Service::Worker { &["hearing doorbells"] } else { &[] };
    match connection {
        None => {
            let names = [&["exchanges and queues", "queue type"], reads, &["doorbell"]].concat();
            doctor.skip(&names, "the broker cannot be reached");
        }
        Some(connection) => {
            let there = doctor.look("exchanges and queues", passively(&connection, &topology)).await;
            if there {
                doctor.look("queue type", kind(&connection, &topology)).await;
                if service == Service::Worker {
                    doctor.look("hearing doorbells", hear(&connection, &topology)).await;
                }
                doctor.look("doorbell", ring(&connection, &topology)).await;
            } else {
                doctor.skip(&[&["queue type"], reads, &["doorbell"]].concat(), "exchanges or queues are missing");
            }
            // An open connection would be closed by force, and the broker would log it.
            let _ = tokio::time::timeout(crate::limits::STOP_GRACE, connection.close(200, "looked".into())).await;
        }
    }
    management::examine(doctor, management, vhost(settings), &topology).await;
}

fn vhost(settings: &BrokerSettings) -> String {
    settings.url.expose_secret().parse::<AMQPUri>().map(|uri| uri.vhost).unwrap_or_else(|_| "/".to_owned())
}

/// Host, port, vhost and user: never the password.
fn place(settings: &BrokerSettings) -> String {
    match settings.url.expose_secret().parse::<AMQPUri>() {
        Ok(uri) => format!(
            "{}:{}, vhost {}, as {}",
            uri.authority.host, uri.authority.port, uri.vhost, uri.authority.userinfo.username
        ),
        Err(_) => "AMQP_URL cannot be read".to_owned(),
    }
}

fn unreachable(error: &BrokerError) -> Finding {
    let advice = match error {
        BrokerError::Lapin(error) if is_hard(error, &AMQPHardError::NOTALLOWED) => {
            "make the vhost, and give the user its rights there: deploy/rabbitmq/definitions.json"
        }
        BrokerError::Lapin(error) if is_soft(error, &AMQPSoftError::ACCESSREFUSED) => {
            "the user or the password in AMQP_URL is wrong: rabbitmqctl change_password, or set the right ones"
        }
        BrokerError::Lapin(_)
        | BrokerError::Timeout
        | BrokerError::Closed
        | BrokerError::Returned(_)
        | BrokerError::NoConfirms => {
            "start it, or correct AMQP_URL; meanwhile workers find jobs by polling every JOB_POLL_SECS"
        }
    };
    // Not where it was tried: what is no right URL may have a password anywhere.
    Finding::fault(Chain(error).to_string(), advice)
}

fn is_soft(error: &lapin::Error, kind: &AMQPSoftError) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(error) if error.get_id() == kind.get_id())
}

fn is_hard(error: &lapin::Error, kind: &AMQPHardError) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(error) if error.get_id() == kind.get_id())
}

fn broken(error: lapin::Error) -> Finding {
    Finding::fault(Chain(&error).to_string(), "look at the log of the broker")
}

/// Looks whether everything is there. Looking takes no right; what is missing closes the channel that looked.
async fn passively(connection: &Connection, topology: &Topology) -> Finding {
    let look = async |name: &str, exchange: Option<ExchangeKind>| {
        let channel = connection.create_channel().await?;
        match exchange {
            Some(kind) => {
                let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
                channel.exchange_declare(name.into(), kind, passive, FieldTable::default()).await?;
            }
            None => {
                let passive = QueueDeclareOptions { passive: true, ..Default::default() };
                channel.queue_declare(name.into(), passive, FieldTable::default()).await?;
            }
        }
        channel.close(200, "looked".into()).await
    };
    let wanted = [
        ("exchange", &topology.exchange, Some(ExchangeKind::Direct)),
        ("exchange", &topology.dead_exchange, Some(ExchangeKind::Fanout)),
        ("queue", &topology.jobs, None),
        ("queue", &topology.dead, None),
    ];
    let mut missing = Vec::new();
    for (what, name, kind) in wanted {
        match look(name, kind).await {
            Ok(()) => {}
            Err(error) if is_soft(&error, &AMQPSoftError::NOTFOUND) => missing.push(format!("{what} {name}")),
            Err(error) => return broken(error),
        }
    }
    match missing.is_empty() {
        true => Finding::ok(format!("{} and what belongs to it", topology.jobs)),
        false => Finding::fault(format!("missing: {}", missing.join(", ")), IMPORT),
    }
}

/// Looks whether the queue is a quorum queue: declaring what is there again is harmless, and fails when it is another.
async fn kind(connection: &Connection, topology: &Topology) -> Finding {
    let declaring = async {
        let channel = connection.create_channel().await?;
        topology.declare_jobs(&channel).await?;
        channel.close(200, "looked".into()).await
    };
    match declaring.await {
        Ok(()) => Finding::ok(format!("{} is a quorum queue", topology.jobs)),
        Err(error) if is_soft(&error, &AMQPSoftError::PRECONDITIONFAILED) => Finding::fault(
            Chain(&error).to_string(),
            format!("rabbitmqctl delete_queue -p VHOST {}, then {IMPORT}; nothing is lost with a queue", topology.jobs),
        ),
        Err(error) if is_soft(&error, &AMQPSoftError::ACCESSREFUSED) => {
            Finding::skipped("this user may not declare, which is right; set AMQP_MANAGEMENT_URL to look otherwise")
        }
        Err(error) => broken(error),
    }
}

/// Takes a doorbell, if one waits, and gives it back.
async fn hear(connection: &Connection, topology: &Topology) -> Finding {
    let hearing = async {
        let channel = connection.create_channel().await?;
        if let Some(got) = channel.basic_get(topology.jobs.as_str().into(), BasicGetOptions::default()).await? {
            got.delivery.nack(BasicNackOptions { requeue: true, ..Default::default() }).await?;
        }
        channel.close(200, "looked".into()).await
    };
    match hearing.await {
        Ok(()) => Finding::ok(format!("{} can be read", topology.jobs)),
        Err(error) if is_soft(&error, &AMQPSoftError::ACCESSREFUSED) => Finding::fault(
            format!("this user may not read {}", topology.jobs),
            "rabbitmqctl set_permissions as in deploy/rabbitmq/definitions.json; meanwhile workers poll",
        ),
        Err(error) => broken(error),
    }
}

/// Rings for a job that never was: workers look, find none, and that is all.
async fn ring(connection: &Connection, topology: &Topology) -> Finding {
    let ringing = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let nobodys = Bell { job: Uuid::nil(), trace: None };
        let confirmation = doorbell::send(&channel, topology, &nobodys).await?;
        let _ = channel.close(200, "looked".into()).await;
        Ok::<_, BrokerError>(confirmation)
    };
    match ringing.await {
        Ok(Confirmation::Ack(None)) => Finding::ok("rang for no job, and was confirmed"),
        Ok(Confirmation::Ack(Some(_))) => Finding::fault(
            format!("no queue is bound to {}", topology.exchange),
            "bind it as deploy/rabbitmq/definitions.json does; meanwhile workers poll",
        ),
        Ok(Confirmation::Nack(_)) => Finding::warning(
            format!("{} is full", topology.jobs),
            "see that workers run; the relay rings again, and workers poll",
        ),
        Ok(Confirmation::NotRequested) => Finding::fault("confirms were not requested", "report this"),
        Err(BrokerError::Lapin(error)) if is_soft(&error, &AMQPSoftError::ACCESSREFUSED) => Finding::fault(
            format!("this user may not write to {}", topology.exchange),
            "rabbitmqctl set_permissions as in deploy/rabbitmq/definitions.json; meanwhile workers poll",
        ),
        Err(BrokerError::Timeout) => Finding::fault(
            "the doorbell was not confirmed in time",
            "look for an alarm of the broker, of memory or disk (`rabbitmq-diagnostics alarms`): it blocks who publishes",
        ),
        Err(error) => Finding::fault(Chain(&error).to_string(), "look at the log of the broker"),
    }
}
