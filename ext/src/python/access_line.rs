//! access_line for Python.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::access_line::{AccessLine, Stamp};

/// What is kept for the next lines once some were taken.
const KEPT_BYTES: usize = 1 << 20;

/// A log must not fail on half a surrogate pair, which no UTF-8 has: such a text becomes one replacement character.
#[derive(Clone, Copy)]
pub(super) struct Text<'a>(pub(super) &'a str);

impl<'a, 'py> FromPyObject<'a, 'py> for Text<'a> {
    type Error = PyErr;

    #[inline]
    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<&'a str>() {
            Ok(text) => Ok(Text(text)),
            Err(_) if value.is_instance_of::<PyString>() => Ok(Text("\u{fffd}")),
            Err(error) => Err(error),
        }
    }
}

/// The access log's line of a request, as JSON, LF at its end.
#[pyfunction]
#[pyo3(signature = (
    timestamp, level, request_id, method, path, route, status, started, ended, first_byte, ip, user_agent, key_id,
    user_id, tenant_id, model, backend, attempts, prompt_tokens, completion_tokens, cost_nano, fault, error, detail, /
))]
#[expect(clippy::too_many_arguments)]
fn access_line<'py>(
    py: Python<'py>,
    timestamp: Text<'_>,
    level: Text<'_>,
    request_id: &[u8],
    method: Text<'_>,
    path: &[u8],
    route: Text<'_>,
    status: i64,
    started: f64,
    ended: f64,
    first_byte: f64,
    ip: Text<'_>,
    user_agent: Option<&[u8]>,
    key_id: Option<Text<'_>>,
    user_id: Option<Text<'_>>,
    tenant_id: Option<Text<'_>>,
    model: Option<Text<'_>>,
    backend: Option<Text<'_>>,
    attempts: i64,
    prompt_tokens: Option<i64>,
    completion_tokens: Option<i64>,
    cost_nano: i64,
    fault: Option<Text<'_>>,
    error: Option<Text<'_>>,
    detail: Option<Text<'_>>,
) -> Bound<'py, PyBytes> {
    let line = AccessLine {
        timestamp: timestamp.0,
        level: level.0,
        request_id,
        method: method.0,
        path,
        route: route.0,
        status,
        started,
        ended,
        first_byte,
        ip: ip.0,
        user_agent: user_agent.unwrap_or_default(),
        key_id: key_id.map(|text| text.0),
        user_id: user_id.map(|text| text.0),
        tenant_id: tenant_id.map(|text| text.0),
        model: model.map(|text| text.0),
        backend: backend.map(|text| text.0),
        attempts,
        prompt_tokens,
        completion_tokens,
        cost_nano,
        fault: fault.map(|text| text.0),
        error: error.map(|text| text.0),
        detail: detail.map(|text| text.0),
    };
    PyBytes::new(py, &line.encode())
}

/// Log lines on their way to the writer.
#[pyclass(frozen, module = "penstock.ext._native")]
pub(super) struct LogLines(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    count: usize,
    stamp: Stamp,
}

impl LogLines {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a request's line. wall_ns: when it ended.
    pub(super) fn request(&self, line: &AccessLine<'_>, wall_ns: u64) {
        let mut pending = self.pending();
        let Pending {
            bytes,
            count,
            stamp,
        } = &mut *pending;
        let line = AccessLine {
            timestamp: stamp.at(wall_ns),
            ..*line
        };
        line.encode_into(bytes);
        *count += 1;
    }
}

#[pymethods]
impl LogLines {
    #[new]
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn push(&self, line: &[u8]) {
        let mut pending = self.pending();
        pending.bytes.extend_from_slice(line);
        pending.count += 1;
    }

    /// All bytes so far, which are gone from here, and how many lines they are.
    fn take<'py>(&self, py: Python<'py>) -> (Bound<'py, PyBytes>, usize) {
        let mut pending = self.pending();
        let taken = PyBytes::new(py, &pending.bytes);
        pending.bytes.clear();
        pending.bytes.shrink_to(KEPT_BYTES);
        (taken, std::mem::take(&mut pending.count))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LogLines>()?;
    module.add_function(wrap_pyfunction!(access_line, module)?)
}
