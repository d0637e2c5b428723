//! multipart_field for Python.

use pyo3::prelude::*;

use crate::multipart;

/// Where the value of form field `name` stands in the first bytes of a multipart/form-data body (RFC 7578).
#[pyfunction]
fn multipart_field(prefix: &[u8], content_type: &[u8], name: &[u8]) -> Option<(usize, usize)> {
    multipart::multipart_field(prefix, content_type, name).map(|value| (value.start, value.end))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(multipart_field, module)?)
}
