//! Exchanges and queues of the broker, declared once, by whoever connects first.
//!
//! Every name begins with a prefix (`AMQP_PREFIX`), so that several installations can share a broker.
//! What may have to change later (time to live, length, delivery limit, dead-letter exchange) is a *policy* of the
//! broker: arguments of a queue cannot be changed, and declaring it with others closes the channel.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

/// Routing key of doorbells.
pub const ROUTING_KEY: &str = "jobs";

/// The names of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Direct exchange that doorbells are published to.
    pub exchange: String,
    /// Quorum queue that workers consume.
    pub jobs: String,
    /// Fan-out exchange for doorbells that were rejected or delivered too often.
    pub dead_exchange: String,
    /// Where those end up. For operators only: losing it loses nothing.
    pub dead: String,
}

impl Topology {
    /// The names below a prefix.
    pub fn new(prefix: &str) -> Self {
        Self {
            exchange: prefix.to_owned(),
            jobs: format!("{prefix}.jobs"),
            dead_exchange: format!("{prefix}.dead"),
            dead: format!("{prefix}.dead"),
        }
    }

    /// Declares everything. Harmless when it is there already, and heals a broker that was wiped.
    pub async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let none = FieldTable::default;
        for (name, kind) in [(&self.exchange, ExchangeKind::Direct), (&self.dead_exchange, ExchangeKind::Fanout)] {
            channel.exchange_declare(name.as_str().into(), kind, durable, none()).await?;
        }
        // A quorum queue survives the loss of a node where there are three, and works on one.
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let queue = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(self.jobs.as_str().into(), queue, quorum).await?;
        channel.queue_declare(self.dead.as_str().into(), queue, none()).await?;
        let bind = QueueBindOptions::default();
        channel
            .queue_bind(self.jobs.as_str().into(), self.exchange.as_str().into(), ROUTING_KEY.into(), bind, none())
            .await?;
        channel
            .queue_bind(self.dead.as_str().into(), self.dead_exchange.as_str().into(), "".into(), bind, none())
            .await?;
        Ok(())
    }
}
