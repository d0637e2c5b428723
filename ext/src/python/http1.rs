//! The Python face of `http1`.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use pyo3::create_exception;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::{MutexExt, PyOnceLock};
use pyo3::types::{PyBytes, PyList, PyTuple};

use super::json::{Peek, changed_length};
use super::spool::Entry;
use crate::decimal;
use crate::http1;
use crate::http1::{End, Kept, Media};
use crate::json::{self, Edit};

create_exception!(
    penstock.ext._native,
    ProtocolError,
    PyValueError,
    "A backend broke HTTP/1.1 (RFC 9112); the text says how. The connection cannot be used again."
);

/// From this size on the body is joined by Python's own `bytes + bytes`, which does not zero the memory first.
const LARGE_BODY_BYTES: usize = 16 * 1024;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, media) in [
        ("MEDIA_NONE", Media::None),
        ("MEDIA_OTHER", Media::Other),
        ("MEDIA_JSON", Media::Json),
        ("MEDIA_EVENT_STREAM", Media::EventStream),
        ("MEDIA_NDJSON", Media::Ndjson),
        ("MEDIA_MULTIPART", Media::Multipart),
    ] {
        module.add(name, media as u8)?;
    }
    for (name, end) in [
        ("MESSAGE_OPEN", End::Open),
        ("MESSAGE_DONE", End::Done),
        ("MESSAGE_DONE_CLOSE", End::DoneClose),
        ("MESSAGE_BROKEN", End::Broken),
    ] {
        module.add(name, end as u8)?;
    }
    module.add("ProtocolError", module.py().get_type::<ProtocolError>())?;
    module.add_class::<RequestHead>()?;
    module.add_class::<ResponseHead>()?;
    module.add_class::<ResponseParser>()
}

#[pyclass(frozen, module = "penstock.ext._native")]
pub(super) struct RequestHead {
    head: http1::RequestHead,
    host: Option<Py<PyBytes>>,
    origin: Option<Py<PyBytes>>,
    content_type: Option<Py<PyBytes>>,
    request_id: Option<Py<PyBytes>>,
    admin_key: Option<Py<PyBytes>>,
    user_agent: Option<Py<PyBytes>>,
}

#[pymethods]
impl RequestHead {
    #[new]
    fn new(headers: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut this = Self::of(http1::RequestHead::new());
        if let Ok(list) = headers.cast::<PyList>() {
            for line in list {
                this.line(&line)?;
            }
        } else {
            for line in headers.try_iter()? {
                this.line(&line?)?;
            }
        }
        this.head.finish();
        Ok(this)
    }

    #[getter]
    fn problem(&self) -> Option<&'static str> {
        self.head.problem()
    }

    #[getter]
    fn host<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        match &self.host {
            Some(host) => host.bind(py).clone(),
            None => PyBytes::new(py, b""),
        }
    }

    #[getter]
    fn origin(&self) -> Option<&Py<PyBytes>> {
        self.origin.as_ref()
    }

    #[getter]
    fn media(&self) -> u8 {
        self.head.media() as u8
    }

    #[getter]
    fn content_type(&self) -> Option<&Py<PyBytes>> {
        self.content_type.as_ref()
    }

    #[getter]
    fn content_length(&self) -> Option<u64> {
        self.head.content_length()
    }

    #[getter]
    fn has_body(&self) -> bool {
        self.head.has_body()
    }

    #[getter]
    fn request_id(&self) -> Option<&Py<PyBytes>> {
        self.request_id.as_ref()
    }

    #[getter]
    fn api_key<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.head.api_key().map(|key| PyBytes::new(py, key))
    }

    #[getter]
    fn api_keys_disagree(&self) -> bool {
        self.head.api_keys_disagree()
    }

    #[getter]
    fn admin_key(&self) -> Option<&Py<PyBytes>> {
        self.admin_key.as_ref()
    }

    #[getter]
    fn forwarded_for<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.head
            .forwarded_for()
            .map(|addresses| PyBytes::new(py, addresses))
    }

    #[getter]
    fn user_agent(&self) -> Option<&Py<PyBytes>> {
        self.user_agent.as_ref()
    }

    #[pyo3(
        signature = (start, body_length, body = None, identity = false),
        text_signature = "($self, start, body_length, body=b'', identity=False)"
    )]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        start: &[u8],
        body_length: i64,
        body: Option<&Bound<'py, PyBytes>>,
        identity: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if let Some(problem) = self.head.problem() {
            return Err(PyValueError::new_err(format!(
                "a request with a problem is not sent: {problem}"
            )));
        }
        let Some(framing) = http1::FramingLine::new(body_length) else {
            return Err(PyValueError::new_err(
                "body_length is a length, -1 (no framing line) or -2 (chunked)",
            ));
        };
        let lines = self.head.lines(identity);
        match body {
            Some(body) if body.as_bytes().len() >= LARGE_BODY_BYTES => {
                let head = join(py, &http1::pieces(start, &lines, &framing, b""))?;
                Ok(head.as_any().add(body)?.cast_into()?)
            }
            Some(body) => join(py, &http1::pieces(start, &lines, &framing, body.as_bytes())),
            None => join(py, &http1::pieces(start, &lines, &framing, b"")),
        }
    }

    /// `encode` of a body with the changes of `rewrite`, in one piece of memory.
    #[expect(clippy::too_many_arguments)]
    fn encode_changed<'py>(
        &self,
        py: Python<'py>,
        start: &[u8],
        body: &[u8],
        facts: &Peek,
        model: Option<&[u8]>,
        ask_usage: bool,
        cap_name: &[u8],
        cap: u64,
        identity: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let changes = facts.changes(body, model, ask_usage, cap_name, cap)?;
        let edits: Vec<Edit<'_>> = changes.iter().map(json::as_edit).collect();
        let length = changed_length(body, &edits)?;
        let Some(framing) = i64::try_from(length).ok().and_then(http1::FramingLine::new) else {
            return Err(PyValueError::new_err("a body of more than 2**63 bytes"));
        };
        let lines = self.head.lines(identity);
        let head = http1::pieces(start, &lines, &framing, b"");
        let head_length: usize = head.iter().map(|piece| piece.len()).sum();
        PyBytes::new_with(py, head_length + length, |mut place| {
            for piece in &head {
                place.write_all(piece)?;
            }
            json::splice_into(body, &edits, place);
            Ok(())
        })
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let host = self
            .host
            .as_ref()
            .map_or(b"".as_slice(), |host| host.as_bytes(py));
        let problem = self.head.problem().unwrap_or("none");
        format!(
            "<RequestHead host={} problem={problem}>",
            host.escape_ascii()
        )
    }
}

impl RequestHead {
    /// What was read of a head, without the lines it said to keep.
    pub(super) fn of(head: http1::RequestHead) -> Self {
        Self {
            head,
            host: None,
            origin: None,
            content_type: None,
            request_id: None,
            admin_key: None,
            user_agent: None,
        }
    }

    /// The one credential the head carries, if it has exactly one.
    pub(super) fn credential(&self) -> Option<&[u8]> {
        self.head
            .api_key()
            .filter(|_| !self.head.api_keys_disagree())
    }

    pub(super) fn user_agent_bytes<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        self.user_agent
            .as_ref()
            .map_or(b"".as_slice(), |agent| agent.as_bytes(py))
    }

    #[inline]
    pub(super) fn keep(&mut self, kept: Kept, value: &Bound<'_, PyBytes>) {
        let place = match kept {
            Kept::Host => &mut self.host,
            Kept::Origin => &mut self.origin,
            Kept::ContentType => &mut self.content_type,
            Kept::RequestId => &mut self.request_id,
            Kept::AdminKey => &mut self.admin_key,
            Kept::UserAgent => &mut self.user_agent,
        };
        *place = Some(value.clone().unbind());
    }

    #[inline]
    fn line(&mut self, line: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(pair) = line.cast::<PyTuple>() else {
            // ASGI asks for an iterable of two-item iterables; servers give tuples.
            return self.line(line.cast::<PyList>()?.to_tuple().as_any());
        };
        if pair.len() != 2 {
            return Err(PyTypeError::new_err("a header line is a pair of bytes"));
        }
        let (name, value) = (pair.get_borrowed_item(0)?, pair.get_borrowed_item(1)?);
        let (name, value) = (name.cast::<PyBytes>()?, value.cast::<PyBytes>()?);
        self.pair(&name, &value)
    }

    #[inline]
    fn pair(&mut self, name: &Bound<'_, PyBytes>, value: &Bound<'_, PyBytes>) -> PyResult<()> {
        if let Some(kept) = self.head.line(name.as_bytes(), value.as_bytes()) {
            self.keep(kept, value);
        }
        Ok(())
    }
}

#[pyclass(frozen, module = "penstock.ext._native")]
struct ResponseHead {
    head: http1::ResponseHead,
    /// Made when they are asked for: most answers go on as `lines`.
    headers: PyOnceLock<Py<PyList>>,
}

#[pymethods]
impl ResponseHead {
    #[getter]
    fn status(&self) -> u16 {
        self.head.status
    }

    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<&Py<PyList>> {
        self.headers.get_or_try_init(py, || {
            let names = common_names(py);
            let lines = self.head.lines().map(|(name, value)| {
                let ready = http1::common_name(name).and_then(|index| names.get(index));
                let name =
                    ready.map_or_else(|| PyBytes::new(py, name), |ready| ready.bind(py).clone());
                (name, PyBytes::new(py, value))
            });
            Ok(PyList::new(py, lines)?.unbind())
        })
    }

    /// The whole answer with this body as a client gets it: status line, header lines, body.
    ///
    /// reason: of the status. request_id, date: for an answer that brings none. end: the last lines, empty one included.
    #[pyo3(signature = (reason, request_id, standing, date, end, body, /))]
    #[expect(clippy::too_many_arguments)]
    fn answer<'py>(
        &self,
        py: Python<'py>,
        reason: &[u8],
        request_id: &[u8],
        standing: Option<&Entry>,
        date: &[u8],
        end: &[u8],
        body: &[u8],
    ) -> Bound<'py, PyBytes> {
        let mut out = Vec::with_capacity(1024 + body.len());
        out.extend_from_slice(b"HTTP/1.1 ");
        decimal::push(&mut out, u64::from(self.head.status));
        out.push(b' ');
        out.extend_from_slice(reason);
        out.extend_from_slice(b"\r\n");
        let lines = self.head.lines();
        for (name, value) in lines.filter(|(name, _)| name != b"content-length") {
            for part in [name, b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        if !self.head.marks.request_id {
            for part in [b"x-request-id: ".as_slice(), request_id, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        if let Some(entry) = standing {
            entry.push_lines(&mut out);
        }
        if !self.head.marks.date {
            out.extend_from_slice(date);
        }
        out.extend_from_slice(b"content-length: ");
        decimal::push(&mut out, body.len() as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(end);
        out.extend_from_slice(body);
        PyBytes::new(py, &out)
    }

    #[getter]
    fn media(&self) -> u8 {
        self.head.media as u8
    }

    #[getter]
    fn content_length(&self) -> Option<u64> {
        self.head.content_length
    }

    #[getter]
    fn encoded(&self) -> bool {
        self.head.encoded
    }

    #[getter]
    fn retry_after<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.head.retry_after().map(|text| PyBytes::new(py, text))
    }

    #[getter]
    fn has_date(&self) -> bool {
        self.head.marks.date
    }

    #[getter]
    fn has_request_id(&self) -> bool {
        self.head.marks.request_id
    }

    #[getter]
    fn has_cors(&self) -> bool {
        self.head.marks.cors
    }

    #[getter]
    fn has_rate_limits(&self) -> bool {
        self.head.marks.rate_limits
    }

    fn __repr__(&self) -> String {
        format!("<ResponseHead {}>", self.head.status)
    }
}

/// Made once. Ready names save 9 % of feeding a whole response with nine such lines (CPython 3.11, Xeon, timeit).
fn common_names(py: Python<'_>) -> &[Py<PyBytes>] {
    static NAMES: PyOnceLock<Vec<Py<PyBytes>>> = PyOnceLock::new();
    NAMES.get_or_init(py, || {
        http1::COMMON_NAMES
            .iter()
            .map(|name| PyBytes::new(py, name).unbind())
            .collect()
    })
}

#[pyclass(frozen, module = "penstock.ext._native")]
struct ResponseParser {
    /// Python objects are made outside the lock: making one may run the garbage collector, and that anything.
    parser: Mutex<http1::ResponseParser>,
}

#[pymethods]
impl ResponseParser {
    #[new]
    #[pyo3(signature = (max_head_bytes = 65536))]
    fn new(max_head_bytes: usize) -> Self {
        Self {
            parser: Mutex::new(http1::ResponseParser::new(max_head_bytes)),
        }
    }

    #[pyo3(signature = (head_request = false))]
    fn expect(&self, py: Python<'_>, head_request: bool) {
        self.parser
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
            .expect(head_request);
    }

    fn feed<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyBytes>,
    ) -> PyResult<(Option<ResponseHead>, Bound<'py, PyBytes>, u8)> {
        let bytes = data.as_bytes();
        let fed = self
            .parser
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
            .feed(bytes);
        let fed = fed.map_err(protocol_error)?;
        let head = fed.head.map(|head| ResponseHead {
            head,
            headers: PyOnceLock::new(),
        });
        let body = match fed.body.ranges() {
            [] => PyBytes::new(py, b""),
            [all] if *all == (0..bytes.len()) => data.clone(),
            [part] => PyBytes::new(py, bytes.get(part.clone()).unwrap_or_default()),
            _ => join(py, &fed.body.parts(bytes).collect::<Vec<_>>())?,
        };
        Ok((head, body, fed.end as u8))
    }

    fn feed_eof(&self, py: Python<'_>) -> PyResult<u8> {
        let end = self
            .parser
            .lock_py_attached(py)
            .unwrap_or_else(PoisonError::into_inner)
            .feed_eof();
        Ok(end.map_err(protocol_error)? as u8)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!(
            "<ResponseParser {}>",
            self.parser
                .lock_py_attached(py)
                .unwrap_or_else(PoisonError::into_inner)
        )
    }
}

fn protocol_error(error: http1::ProtocolError) -> PyErr {
    ProtocolError::new_err(error.to_string())
}

/// One `bytes` of all pieces.
#[inline]
pub(super) fn join<'py>(py: Python<'py>, pieces: &[&[u8]]) -> PyResult<Bound<'py, PyBytes>> {
    let length = pieces.iter().map(|piece| piece.len()).sum();
    PyBytes::new_with(py, length, |mut place| {
        for piece in pieces {
            place.write_all(piece)?;
        }
        Ok(())
    })
}
