//! HTTP/1.1 heads and framing (RFC 9112): a client's request in, a backend's response out.
//!
//! Nothing here does IO or knows of Python. Input is borrowed; what is body in it is answered as ranges of it.

mod caller;
mod chunked;
mod common_names;
mod error;
mod field;
mod framing_line;
mod head;
mod host;
mod media;
mod refused;
mod request;
mod request_parser;
mod response;
mod server_request;
mod target;

#[cfg(test)]
mod tests;

pub use common_names::{COMMON_NAMES, COMMON_REQUEST_NAMES, common_name, common_request_name};
pub use error::ProtocolError;
pub use framing_line::FramingLine;
pub use head::ResponseHead;
pub use media::Media;
pub use refused::Refused;
pub use request::{Kept, RequestHead, pieces};
pub use request_parser::{FedRequest, RequestParser};
pub use response::{Body, End, Fed, ResponseParser};
pub use server_request::Request;
