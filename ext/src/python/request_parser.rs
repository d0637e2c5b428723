//! The Python face of `http1`, the server side.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::{MutexExt, PyOnceLock};
use pyo3::types::{PyBytes, PyList, PyString};

use super::http1::{RequestHead, join};
use crate::http1;
use crate::http1::{End, FedRequest, Refused};

create_exception!(
    penstock.ext._native,
    RequestRefused,
    PyValueError,
    "A request that cannot be read in one way only; args are (status, text): the HTTP status to answer (400, 431, 501,\n505) and words for the caller. Nothing after it on the connection can be trusted."
);

type Fed<'py> = (Option<Request>, Bound<'py, PyBytes>, u8);

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("RequestRefused", module.py().get_type::<RequestRefused>())?;
    module.add_class::<Request>()?;
    module.add_class::<RequestParser>()
}

#[pyclass(frozen, get_all, module = "penstock.ext._native")]
struct Request {
    method: Py<PyString>,
    path: Py<PyBytes>,
    query: Py<PyBytes>,
    headers: Py<PyList>,
    head: Py<RequestHead>,
    http10: bool,
    keep_alive: bool,
    expects_continue: bool,
}

#[pymethods]
impl Request {
    fn __repr__(&self, py: Python<'_>) -> String {
        let path = self.path.as_bytes(py).escape_ascii();
        format!("<Request {} {path}>", self.method.bind(py))
    }
}

impl Request {
    fn new(py: Python<'_>, mut request: http1::Request) -> PyResult<Self> {
        let mut head = RequestHead::of(std::mem::take(&mut request.head));
        let names = common_names(py);
        let lines = request.lines().map(|(name, value, kept)| {
            let ready = http1::common_request_name(name).and_then(|index| names.get(index));
            let name = ready.map_or_else(|| PyBytes::new(py, name), |ready| ready.bind(py).clone());
            let value = PyBytes::new(py, value);
            if let Some(kept) = kept {
                head.keep(kept, &value);
            }
            (name, value)
        });
        let headers = PyList::new(py, lines)?.unbind();
        Ok(Self {
            method: method(py, request.method()),
            path: PyBytes::new(py, request.path()).unbind(),
            query: PyBytes::new(py, request.query()).unbind(),
            headers,
            head: Py::new(py, head)?,
            http10: request.http10,
            keep_alive: request.keep_alive,
            expects_continue: request.expects_continue,
        })
    }
}

fn method(py: Python<'_>, method: &str) -> Py<PyString> {
    let known = match method {
        "POST" => intern!(py, "POST"),
        "GET" => intern!(py, "GET"),
        "HEAD" => intern!(py, "HEAD"),
        "OPTIONS" => intern!(py, "OPTIONS"),
        "PUT" => intern!(py, "PUT"),
        "PATCH" => intern!(py, "PATCH"),
        "DELETE" => intern!(py, "DELETE"),
        _ => return PyString::new(py, method).unbind(),
    };
    known.clone().unbind()
}

/// Made once. Ready names save 7 % of feeding a whole request with eight such lines (CPython 3.11, timeit).
fn common_names(py: Python<'_>) -> &[Py<PyBytes>] {
    static NAMES: PyOnceLock<Vec<Py<PyBytes>>> = PyOnceLock::new();
    NAMES.get_or_init(py, || {
        http1::COMMON_REQUEST_NAMES
            .iter()
            .map(|name| PyBytes::new(py, name).unbind())
            .collect()
    })
}

#[pyclass(frozen, module = "penstock.ext._native")]
struct RequestParser {
    /// Python objects are made outside the lock: making one may run the garbage collector, and that anything.
    parser: Mutex<http1::RequestParser>,
}

#[pymethods]
impl RequestParser {
    #[new]
    #[pyo3(signature = (max_head_bytes = 65536, max_headers = 128))]
    fn new(max_head_bytes: usize, max_headers: usize) -> Self {
        Self {
            parser: Mutex::new(http1::RequestParser::new(max_head_bytes, max_headers)),
        }
    }

    fn feed<'py>(&self, py: Python<'py>, data: &Bound<'py, PyBytes>) -> PyResult<Fed<'py>> {
        let bytes = data.as_bytes();
        let fed = self.lock(py).feed(bytes).map_err(refused)?;
        let body = match fed.body.ranges() {
            [] => PyBytes::new(py, b""),
            [all] if *all == (0..bytes.len()) => data.clone(),
            [part] => PyBytes::new(py, bytes.get(part.clone()).unwrap_or_default()),
            _ => join(py, &fed.body.parts(bytes).collect::<Vec<_>>())?,
        };
        answer(py, fed, body)
    }

    fn next<'py>(&self, py: Python<'py>) -> PyResult<Fed<'py>> {
        let (fed, body) = self.lock(py).next_request().map_err(refused)?;
        answer(py, fed, PyBytes::new(py, &body))
    }

    #[getter]
    fn pending(&self, py: Python<'_>) -> bool {
        self.lock(py).pending()
    }
}

impl RequestParser {
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, http1::RequestParser> {
        self.parser
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer<'py>(py: Python<'py>, fed: FedRequest, body: Bound<'py, PyBytes>) -> PyResult<Fed<'py>> {
    let request = match fed.request {
        Some(request) => Some(Request::new(py, request)?),
        None => None,
    };
    let end = if fed.done { End::Done } else { End::Open };
    Ok((request, body, end as u8))
}

fn refused(refused: Refused) -> PyErr {
    RequestRefused::new_err((refused.status, refused.text))
}
