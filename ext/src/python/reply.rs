//! ReplyScanner and scan_answer for Python.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::reply::{self, Dialect};

/// Tokens as the backend counted them. prompt_tokens includes the cached ones, completion_tokens the reasoning.
#[pyclass(frozen, get_all, module = "penstock.ext._native")]
pub(super) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    cached_tokens: u64,
    reasoning_tokens: u64,
    seconds: f64,
}

impl From<reply::Usage> for Usage {
    fn from(usage: reply::Usage) -> Self {
        Usage {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            seconds: usage.seconds,
        }
    }
}

impl Usage {
    pub(super) fn counts(&self) -> reply::Usage {
        reply::Usage {
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            cached_tokens: self.cached_tokens,
            reasoning_tokens: self.reasoning_tokens,
            seconds: self.seconds,
        }
    }
}

#[pymethods]
impl Usage {
    #[new]
    #[pyo3(signature = (prompt_tokens=0, completion_tokens=0, cached_tokens=0, reasoning_tokens=0, seconds=0.0))]
    fn new(
        prompt_tokens: u64,
        completion_tokens: u64,
        cached_tokens: u64,
        reasoning_tokens: u64,
        seconds: f64,
    ) -> Self {
        Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens,
            reasoning_tokens,
            seconds,
        }
    }
}

/// Reads along a streamed reply without changing it. Any split of the bytes gives the same facts.
#[pyclass(frozen, module = "penstock.ext._native")]
struct ReplyScanner(Mutex<reply::ReplyScanner>);

impl ReplyScanner {
    /// No panic can leave the state half written, so a poisoned lock is as good as a clean one.
    fn state(&self) -> MutexGuard<'_, reply::ReplyScanner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl ReplyScanner {
    #[new]
    fn new(dialect: i64) -> PyResult<Self> {
        Ok(ReplyScanner(Mutex::new(reply::ReplyScanner::new(
            dialect_of(dialect)?,
        ))))
    }

    /// Take the next bytes of the body; the REPLY_ flags so far.
    fn feed(&self, data: &[u8]) -> u8 {
        self.state().feed(data)
    }

    /// The body has ended: a last line without line end counts as one; the REPLY_ flags.
    fn finish(&self) -> u8 {
        self.state().finish()
    }

    /// The REPLY_ flags so far.
    #[getter]
    fn flags(&self) -> u8 {
        self.state().flags()
    }

    /// How many lines have ended so far.
    #[getter]
    fn lines(&self) -> u64 {
        self.state().lines()
    }

    #[getter]
    fn usage(&self) -> Option<Usage> {
        self.state().usage().map(Usage::from)
    }

    #[getter]
    fn finish_reason(&self) -> Option<String> {
        self.state().finish_reason().map(str::to_owned)
    }
}

/// A chat or completions stream without the chunk of usage. Any split of the bytes gives the same.
#[pyclass(frozen, module = "penstock.ext._native")]
struct UsageRemover(Mutex<reply::UsageRemover>);

impl UsageRemover {
    fn state(&self) -> MutexGuard<'_, reply::UsageRemover> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl UsageRemover {
    #[new]
    fn new() -> Self {
        UsageRemover(Mutex::new(reply::UsageRemover::new()))
    }

    /// What goes on of the bytes held and these.
    fn feed<'py>(&self, py: Python<'py>, data: &Bound<'py, PyBytes>) -> Bound<'py, PyBytes> {
        let bytes = data.as_bytes();
        let passed = self.state().feed(bytes);
        match passed {
            Cow::Borrowed(all) if all.len() == bytes.len() => data.clone(),
            part => PyBytes::new(py, &part),
        }
    }

    /// The body has ended: what is still held.
    fn finish<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let held = self.state().finish();
        PyBytes::new(py, &held)
    }
}

/// What a whole (not streamed) JSON answer says of itself.
#[pyclass(frozen, module = "penstock.ext._native")]
struct Answer(reply::Answer);

#[pymethods]
impl Answer {
    #[getter]
    fn complete(&self) -> bool {
        self.0.complete
    }

    #[getter]
    fn usage(&self) -> Option<Usage> {
        self.0.usage.map(Usage::from)
    }

    #[getter]
    fn finish_reason(&self) -> Option<&str> {
        self.0.finish_reason.as_deref()
    }
}

/// Read a whole answer; None if it is not a JSON object.
#[pyfunction]
fn scan_answer(body: &[u8], dialect: i64) -> PyResult<Option<Answer>> {
    Ok(reply::scan_answer(body, dialect_of(dialect)?).map(Answer))
}

fn dialect_of(number: i64) -> PyResult<Dialect> {
    let dialect = usize::try_from(number)
        .ok()
        .and_then(|index| Dialect::ALL.get(index))
        .copied();
    dialect.ok_or_else(|| PyValueError::new_err("dialect must be one of the DIALECT_ constants"))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, dialect) in [
        ("DIALECT_CHAT", Dialect::Chat),
        ("DIALECT_RESPONSES", Dialect::Responses),
        ("DIALECT_MESSAGES", Dialect::Messages),
        ("DIALECT_OLLAMA", Dialect::Ollama),
    ] {
        module.add(name, dialect as u8)?;
    }
    module.add("REPLY_COMPLETE", reply::REPLY_COMPLETE)?;
    module.add("REPLY_ERROR", reply::REPLY_ERROR)?;
    module.add_class::<Usage>()?;
    module.add_class::<ReplyScanner>()?;
    module.add_class::<UsageRemover>()?;
    module.add_class::<Answer>()?;
    module.add_function(wrap_pyfunction!(scan_answer, module)?)
}
