//! peek and splice for Python.

use pyo3::create_exception;
use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::json::{self, Cap, Changes, Edit};

create_exception!(
    penstock.ext._native,
    JsonError,
    PyValueError,
    "A body is not a JSON object (RFC 8259); the text says what was expected, with line and column."
);

/// The top-level fields of a request body that routing and limits need. Of duplicate keys the last counts.
#[pyclass(frozen, module = "penstock.ext._native")]
pub(super) struct Peek {
    model: Option<Py<PyString>>,
    #[pyo3(get)]
    model_mistyped: bool,
    #[pyo3(get)]
    model_spans: Vec<(usize, usize)>,
    #[pyo3(get)]
    pub(super) stream: Option<bool>,
    #[pyo3(get)]
    pub(super) max_output_tokens: Option<u64>,
    user: Option<Py<PyString>>,
    #[pyo3(get)]
    pub(super) include_usage: bool,
    #[pyo3(get)]
    pub(super) choices: u64,
    places: json::Places,
}

impl Peek {
    /// The changes to `body`, which the facts were read from: see `rewrite`.
    pub(super) fn changes<'a>(
        &self,
        body: &'a [u8],
        model: Option<&'a [u8]>,
        ask_usage: bool,
        cap_name: &[u8],
        cap: u64,
    ) -> PyResult<Vec<json::Change<'a>>> {
        let wanted = Changes {
            model,
            ask_usage,
            cap: cap_of(cap_name)?.map(|name| (name, cap)),
        };
        json::changes(body, &self.model_spans, &self.places, &wanted)
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }
}

#[pymethods]
impl Peek {
    #[getter]
    fn model(&self, py: Python<'_>) -> Option<Py<PyString>> {
        self.model.as_ref().map(|model| model.clone_ref(py))
    }

    #[getter]
    fn user(&self, py: Python<'_>) -> Option<Py<PyString>> {
        self.user.as_ref().map(|user| user.clone_ref(py))
    }
}

/// Read a JSON object's facts, checking the whole of it.
#[pyfunction]
fn peek(py: Python<'_>, body: &[u8]) -> PyResult<Peek> {
    let facts = json::peek(body).map_err(|error| JsonError::new_err(error.to_string()))?;
    Ok(Peek {
        model: facts
            .model
            .as_deref()
            .map(|model| PyString::new(py, model).unbind()),
        model_mistyped: facts.model_mistyped,
        stream: facts.stream,
        max_output_tokens: facts.max_output_tokens(),
        user: facts
            .user
            .as_deref()
            .map(|user| PyString::new(py, user).unbind()),
        include_usage: facts.include_usage,
        choices: facts.choices(),
        places: facts.places(),
        model_spans: facts.model_spans,
    })
}

/// The body with a new model, usage asked for and a cap on output tokens, every other byte as it was.
#[pyfunction]
fn rewrite<'py>(
    py: Python<'py>,
    body: &[u8],
    facts: &Peek,
    model: Option<&[u8]>,
    ask_usage: bool,
    cap_name: &[u8],
    cap: u64,
) -> PyResult<Bound<'py, PyBytes>> {
    let changes = facts.changes(body, model, ask_usage, cap_name, cap)?;
    let edits: Vec<Edit<'_>> = changes.iter().map(json::as_edit).collect();
    spliced(py, body, &edits, changed_length(body, &edits)?)
}

fn cap_of(name: &[u8]) -> PyResult<Option<Cap>> {
    let cap = Cap::ALL
        .into_iter()
        .find(|cap| cap.name().as_bytes() == name);
    if cap.is_none() && !name.is_empty() {
        return Err(PyValueError::new_err("cap_name is no name of a cap"));
    }
    Ok(cap)
}

/// Whether a body refers to input that stands elsewhere.
#[pyfunction]
fn remote_input(body: &[u8]) -> bool {
    json::remote_input(body)
}

/// An offset: what does not fit one is a ValueError, as an offset beyond the body is.
struct Offset(usize);

impl<'py> FromPyObject<'_, 'py> for Offset {
    type Error = PyErr;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        value.extract().map(Offset).map_err(|error| {
            let out_of_range = error.is_instance_of::<PyOverflowError>(value.py());
            if out_of_range {
                PyValueError::new_err(json::SpliceError.to_string())
            } else {
                error
            }
        })
    }
}

/// `body` with each [start, end) replaced; edits in rising order, not overlapping.
#[pyfunction]
fn splice<'py>(
    py: Python<'py>,
    body: &[u8],
    edits: Vec<(Offset, Offset, Bound<'py, PyBytes>)>,
) -> PyResult<Bound<'py, PyBytes>> {
    let edits: Vec<Edit<'_>> = edits
        .iter()
        .map(|(start, end, text)| Edit {
            start: start.0,
            end: end.0,
            text: text.as_bytes(),
        })
        .collect();
    let length = json::spliced_length(body, &edits)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    spliced(py, body, &edits, length)
}

fn spliced<'py>(
    py: Python<'py>,
    body: &[u8],
    edits: &[Edit<'_>],
    length: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, length, |out| {
        json::splice_into(body, edits, out);
        Ok(())
    })
}

/// How long a body is with the edits of `Peek::changes`. A ValueError for those of another body.
pub(super) fn changed_length(body: &[u8], edits: &[Edit<'_>]) -> PyResult<usize> {
    json::spliced_length(body, edits)
        .map_err(|_| PyValueError::new_err(json::RewriteError.to_string()))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("JsonError", module.py().get_type::<JsonError>())?;
    module.add_class::<Peek>()?;
    module.add_function(wrap_pyfunction!(peek, module)?)?;
    module.add_function(wrap_pyfunction!(remote_input, module)?)?;
    module.add_function(wrap_pyfunction!(rewrite, module)?)?;
    module.add_function(wrap_pyfunction!(splice, module)?)
}
