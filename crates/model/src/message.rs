//! The doorbell: the only thing that travels through the broker.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::limits;
use crate::trace_context::TraceContext;

/// A doorbell that is to be rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bell {
    /// The job to look at.
    pub job: Uuid,
    /// The trace it belongs to, which travels beside the message, for tools that look at brokers. Workers go by the row.
    pub trace: Option<TraceContext>,
}

/// Says "look at this job". It carries an id and never data: a forged or repeated message can only ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doorbell {
    v: u32,
    /// The job to look at.
    pub job: Uuid,
}

const VERSION: u32 = 1;

impl Doorbell {
    /// Returns the message for a job.
    pub fn for_job(job: Uuid) -> Self {
        Self { v: VERSION, job }
    }

    /// The message as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        format!(r#"{{"v":{},"job":"{}"}}"#, self.v, self.job).into_bytes()
    }

    /// Reads a message; nothing when it is too long, is no doorbell, or has a version this binary does not know.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > limits::MESSAGE_BYTES {
            return None;
        }
        serde_json::from_slice::<Self>(bytes).ok().filter(|m| m.v == VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doorbell_survives_the_wire() {
        let bell = Doorbell::for_job(Uuid::from_u128(7));
        assert_eq!(Doorbell::decode(&bell.encode()), Some(bell));
    }

    #[test]
    fn garbage_is_no_doorbell() {
        let long = format!(r#"{{"v":1,"job":"{}","x":"{}"}}"#, Uuid::nil(), "y".repeat(2000));
        let other = format!(r#"{{"v":99,"job":"{}"}}"#, Uuid::nil());
        for bad in ["", "{", "null", r#"{"v":1}"#, r#"{"v":1,"job":"x"}"#, &long, &other] {
            assert_eq!(Doorbell::decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
