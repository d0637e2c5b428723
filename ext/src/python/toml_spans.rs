//! toml_spans for Python.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::toml_spans::{self as leaf, Span, Step};

type PySpan<'py> = (Bound<'py, PyTuple>, usize, usize, usize, usize);

/// Of every key in a valid TOML text: (path, key line, key column, value line, value column), counted from 1.
#[pyfunction]
fn toml_spans<'py>(py: Python<'py>, text: &str) -> PyResult<Vec<PySpan<'py>>> {
    let spans = leaf::toml_spans(text).map_err(|error| PyValueError::new_err(error.to_string()))?;
    spans.iter().map(|span| as_tuple(py, span)).collect()
}

fn as_tuple<'py>(py: Python<'py>, span: &Span) -> PyResult<PySpan<'py>> {
    let steps = span.path.iter().map(|step| as_object(py, step));
    let path = PyTuple::new(py, steps.collect::<PyResult<Vec<_>>>()?)?;
    Ok((
        path,
        span.key.line,
        span.key.column,
        span.value.line,
        span.value.column,
    ))
}

fn as_object<'py>(py: Python<'py>, step: &Step) -> PyResult<Bound<'py, PyAny>> {
    match step {
        Step::Key(name) => Ok(name.into_pyobject(py)?.into_any()),
        Step::Index(index) => Ok(index.into_pyobject(py)?.into_any()),
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(toml_spans, module)?)
}
