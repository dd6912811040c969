//! Build services that are reached by HTTP: one address, one key that goes nowhere else, uploads that
//! are made while they are sent.
//!
//! What a service understands is its backend's business; here is what is the same for all of them.
//! In reading order: [`ServiceAddress`] and [`ServiceKey`] say where and who, [`ServiceClient`] asks,
//! [`Refusal`] is a no. [`Payload`] is what is sent, a [`Frame`] stands around it, and
//! [`ServiceClient::send`] watches it on its way. [`Pieces`] are an answer that comes while we read it, an
//! [`EventStream`] is what some services tell of their builds that way.

mod address;
mod body;
mod client;
mod event_stream;
mod frame;
mod key;
mod payload;
mod pieces;
mod refusal;
mod send;
mod sent_context;

pub use address::ServiceAddress;
pub use body::Body;
pub use client::{Answer, ServiceClient, ServiceSettings};
pub use event_stream::{EventStream, StreamEvent};
pub use frame::{Form, Frame, boundary};
pub use key::{KeyHeader, ServiceKey};
pub use payload::{Payload, Transfer};
pub use pieces::Pieces;
pub use refusal::Refusal;
pub use send::{SendLimits, Sent};
pub use sent_context::{free_place, sent_context};
