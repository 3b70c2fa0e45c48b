//! The common processing of requests, one step a module, in the order in which [`crate::front`] takes them.

pub(crate) mod cors;
pub(crate) mod incoming;
pub(crate) mod media_type;
pub(crate) mod prefer;
pub(crate) mod request_key;
