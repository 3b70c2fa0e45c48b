//! Direct access to the broker: forged messages, and tidying up.

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use model::topology::{ROUTING_KEY, Topology};

/// A channel to the broker, and the names of one installation.
#[derive(Debug)]
pub struct Broker {
    connection: Connection,
    channel: Channel,
    topology: Topology,
}

impl Broker {
    /// Connects and declares.
    pub async fn connect(url: &str, prefix: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("a broker");
        let channel = connection.create_channel().await.expect("a channel");
        let topology = Topology::new(prefix);
        topology.declare(&connection).await.expect("exchanges and queues");
        Self { connection, channel, topology }
    }

    /// Publishes any bytes where doorbells go.
    pub async fn publish(&self, body: &[u8]) {
        let exchange = self.topology.exchange.as_str().into();
        let options = BasicPublishOptions::default();
        let sent = self.channel.basic_publish(exchange, ROUTING_KEY.into(), options, body, BasicProperties::default());
        sent.await.expect("published");
    }

    /// Messages waiting in the job queue, and its consumers.
    pub async fn waiting(&self) -> (u32, u32) {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = self.topology.jobs.as_str().into();
        let queue = self.channel.queue_declare(queue, options, FieldTable::default()).await.expect("the queue");
        (queue.message_count(), queue.consumer_count())
    }

    /// Takes the first message out of the job queue: its body, and its header fields that are text.
    pub async fn take(&self) -> Option<(Vec<u8>, Vec<(String, String)>)> {
        let options = BasicGetOptions { no_ack: true };
        let queue = self.topology.jobs.as_str().into();
        let message = self.channel.basic_get(queue, options).await.expect("the queue")?;
        let headers = message.properties.headers().clone().unwrap_or_default();
        let texts = headers.inner().iter().filter_map(|(name, value)| {
            let AMQPValue::LongString(text) = value else { return None };
            Some((name.to_string(), text.to_string()))
        });
        Some((message.data.clone(), texts.collect()))
    }

    /// Takes everything out of the job queue.
    pub async fn purge(&self) {
        let options = QueuePurgeOptions::default();
        self.channel.queue_purge(self.topology.jobs.as_str().into(), options).await.expect("the queue is purged");
    }

    /// Messages that were rejected.
    pub async fn rejected(&self) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = self.topology.dead.as_str().into();
        let queue = self.channel.queue_declare(queue, options, FieldTable::default()).await.expect("the queue");
        queue.message_count()
    }

    /// Puts a classic queue in the place of the job queue.
    pub async fn make_classic(&self) {
        let queue = || self.topology.jobs.as_str().into();
        self.channel.queue_delete(queue(), QueueDeleteOptions::default()).await.expect("the queue goes");
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel.queue_declare(queue(), durable, FieldTable::default()).await.expect("another comes");
        let exchange = self.topology.exchange.as_str().into();
        let bind = QueueBindOptions::default();
        let bound = self.channel.queue_bind(queue(), exchange, ROUTING_KEY.into(), bind, FieldTable::default());
        bound.await.expect("bound");
    }

    /// Lets doorbells go nowhere.
    pub async fn unbind(&self) {
        let (queue, exchange) = (self.topology.jobs.as_str().into(), self.topology.exchange.as_str().into());
        let unbound = self.channel.queue_unbind(queue, exchange, ROUTING_KEY.into(), FieldTable::default());
        unbound.await.expect("unbound");
    }

    /// Removes the job queue.
    pub async fn remove_jobs(&self) {
        let queue = self.topology.jobs.as_str().into();
        self.channel.queue_delete(queue, QueueDeleteOptions::default()).await.expect("the queue goes");
    }

    /// Makes everything that is missing.
    pub async fn declare(&self) {
        self.topology.declare(&self.connection).await.expect("exchanges and queues");
    }

    /// Removes the queues and exchanges of the installation.
    pub async fn remove(self) {
        for queue in [&self.topology.jobs, &self.topology.dead] {
            let _ = self.channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
        }
        for exchange in [&self.topology.exchange, &self.topology.dead_exchange] {
            let _ = self.channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default()).await;
        }
        let _ = self.connection.close(200, "done".into()).await;
    }
}
