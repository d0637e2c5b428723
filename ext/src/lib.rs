//! The compiled leaves of penstock: bytes in, small values out.
//!
//! Every leaf is a plain, thread-safe Rust module; `python/` holds their thin Python faces, one file a leaf.
//! `_native.pyi` is the contract of those faces.

pub mod access_line;
pub mod cache;
pub mod decimal;
pub mod hash;
pub mod http1;
pub mod json;
pub mod multipart;
pub mod quote;
pub mod reply;
pub mod shared;
pub mod toml_spans;

#[cfg(feature = "python")]
mod python;
