//! The Python faces, one file a leaf. They convert arguments and results and hold no logic.

use pyo3::prelude::*;

mod access_line;
mod cache;
mod hash;
mod http1;
mod json;
mod multipart;
mod quote;
mod reply;
mod request_parser;
mod rings;
mod rows;
mod shared;
mod spool;
mod targets;
mod tariff;
mod toml_spans;

#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    module.add("BUILD_PROFILE", profile)?;
    access_line::register(module)?;
    cache::register(module)?;
    hash::register(module)?;
    http1::register(module)?;
    json::register(module)?;
    multipart::register(module)?;
    quote::register(module)?;
    reply::register(module)?;
    request_parser::register(module)?;
    rings::register(module)?;
    rows::register(module)?;
    shared::register(module)?;
    spool::register(module)?;
    tariff::register(module)?;
    targets::register(module)?;
    toml_spans::register(module)
}
