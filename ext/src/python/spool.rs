//! Spool, Entry and Refusal for Python.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::reply::Usage;
use super::shared::{Account, Count, State, error_of};
use crate::shared::{
    self, Admission, Clock, Demand, FLAG_BACKEND, FLAG_CACHED, FLAG_ESTIMATED, Facts, OUTCOMES,
    Texts, Wait, Words,
};

type Headers<'py> = Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>;

/// The words of an account's limits when it was asked, from which headers can be told.
struct Told {
    account: Arc<shared::Account>,
    words: Words,
    clock: Clock,
}

impl Told {
    fn lines(&self, limit: Option<usize>) -> Vec<u8> {
        self.account.header_lines(&self.words, limit, &self.clock)
    }

    fn headers<'py>(&self, py: Python<'py>, limit: Option<usize>) -> Headers<'py> {
        let lines = self.lines(limit);
        lines
            .split(|&byte| byte == b'\n')
            .filter_map(|line| {
                let colon = memchr::memchr(b':', line)?;
                let (name, value) = (line.get(..colon)?, line.get(colon + 2..)?.trim_ascii_end());
                Some((PyBytes::new(py, name), PyBytes::new(py, value)))
            })
            .collect()
    }
}

/// Why a request was not admitted.
#[pyclass(frozen, module = "penstock.ext._native")]
struct Refusal {
    /// Which of the account's limits refused for longest.
    #[pyo3(get)]
    index: usize,
    /// ns until it would not refuse; 0 if it always will.
    #[pyo3(get)]
    wait_ns: u64,
    /// The worst case is above the amount itself.
    #[pyo3(get)]
    never: bool,
    told: Told,
}

#[pymethods]
impl Refusal {
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Headers<'py> {
        self.told.headers(py, Some(self.index))
    }

    #[getter]
    fn header_lines<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.told.lines(Some(self.index)))
    }
}

/// An open record: what a request holds until it is closed.
#[pyclass(frozen, module = "penstock.ext._native")]
struct Entry {
    spool: Arc<shared::Spool>,
    slot: usize,
    closed: AtomicBool,
    /// None for one that holds nothing.
    told: Option<Told>,
}

#[pymethods]
impl Entry {
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> Headers<'py> {
        self.told
            .as_ref()
            .map(|told| told.headers(py, None))
            .unwrap_or_default()
    }

    #[getter]
    fn header_lines<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        match &self.told {
            Some(told) => PyBytes::new(py, &told.lines(None)),
            None => PyBytes::new(py, b""),
        }
    }

    /// Settles the holds and closes the record. A second call does nothing.
    #[expect(clippy::too_many_arguments)]
    fn close(
        &self,
        outcome: i64,
        status: i64,
        backend: &[u8],
        usage: Option<&Usage>,
        nano_usd: i64,
        flags: i64,
        ms: f64,
        ttft_ms: f64,
        error: &[u8],
    ) -> PyResult<()> {
        let outcome = u8::try_from(outcome)
            .ok()
            .filter(|&outcome| usize::from(outcome) < OUTCOMES.len());
        let used = usage.map(Usage::counts).unwrap_or_default();
        let facts = Facts {
            outcome: outcome.ok_or_else(|| {
                PyValueError::new_err("outcome must be one of the OUTCOME_ constants")
            })?,
            flags: (flags & 0xff) as u8,
            status: u16::try_from(status).unwrap_or(0),
            prompt: used.prompt_tokens,
            completion: used.completion_tokens,
            cached: used.cached_tokens,
            reasoning: used.reasoning_tokens,
            nano_usd: count(nano_usd),
            ms,
            ttft_ms,
        };
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.spool.close(self.slot, &facts, backend, error);
        }
        Ok(())
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A worker's ring of records.
#[pyclass(frozen, module = "penstock.ext._native")]
struct Spool(Arc<shared::Spool>);

impl Spool {
    fn entry(&self, py: Python<'_>, slot: usize, told: Option<Told>) -> PyResult<Py<PyAny>> {
        let entry = Entry {
            spool: self.0.clone(),
            slot,
            closed: AtomicBool::new(false),
            told,
        };
        Ok(Bound::new(py, entry)?.into_any().unbind())
    }
}

#[pymethods]
impl Spool {
    #[new]
    #[pyo3(signature = (folder, state, records=65_536))]
    fn new(py: Python<'_>, folder: PathBuf, state: &State, records: usize) -> PyResult<Self> {
        let state = state.0.clone();
        let spool = py.detach(|| shared::Spool::open(&folder, state, records))?;
        Ok(Spool(Arc::new(spool)))
    }

    #[getter]
    fn number(&self) -> u32 {
        self.0.number
    }

    /// Records of a dead owner that were settled when this one claimed its ring.
    #[getter]
    fn recovered(&self) -> u64 {
        self.0.recovered
    }

    #[getter]
    fn free(&self) -> usize {
        self.0.free()
    }

    /// Takes of all the account's limits or none: an Entry or a Refusal; None if the ring is full.
    #[expect(clippy::too_many_arguments)]
    fn admit(
        &self,
        py: Python<'_>,
        account: &Account,
        route: &[u8],
        model: &[u8],
        request_id: &[u8],
        tokens: Count,
        nano_usd: Count,
        now_ns: Count,
        wall_ns: Count,
    ) -> PyResult<Option<Py<PyAny>>> {
        let account = &account.account;
        let clock = Clock::new(now_ns.0, wall_ns.0);
        let demand = Demand {
            requests: 1,
            llm_requests: 1,
            tokens: tokens.0,
            nano_usd: nano_usd.0,
            in_flight: 1,
        };
        let texts = Texts {
            route,
            model,
            request_id,
        };
        let told = |words| Told {
            account: account.clone(),
            words,
            clock,
        };
        match self
            .0
            .admit(account, &texts, &demand, &clock)
            .map_err(error_of)?
        {
            Admission::Open { slot, words } => self.entry(py, slot, Some(told(words))).map(Some),
            Admission::Refused { index, wait, words } => {
                let (wait_ns, never) = match wait {
                    Wait::Ns(ns) => (ns, false),
                    Wait::Never => (0, true),
                };
                let refusal = Refusal {
                    index,
                    wait_ns,
                    never,
                    told: told(words),
                };
                Ok(Some(Bound::new(py, refusal)?.into_any().unbind()))
            }
            Admission::Full => Ok(None),
        }
    }

    /// Opens a record that holds nothing; None if the ring is full.
    fn book(
        &self,
        py: Python<'_>,
        account: &Account,
        route: &[u8],
        model: &[u8],
        request_id: &[u8],
        wall_ns: u64,
    ) -> PyResult<Option<Py<PyAny>>> {
        let texts = Texts {
            route,
            model,
            request_id,
        };
        match self
            .0
            .book(&account.account, &texts, &Clock::new(0, wall_ns))
        {
            Some(slot) => self.entry(py, slot, None).map(Some),
            None => Ok(None),
        }
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (number, name) in OUTCOMES.iter().enumerate() {
        module.add(format!("OUTCOME_{}", name.to_uppercase()), number)?;
    }
    module.add("FLAG_CACHED", FLAG_CACHED)?;
    module.add("FLAG_ESTIMATED", FLAG_ESTIMATED)?;
    module.add("FLAG_BACKEND", FLAG_BACKEND)?;
    module.add_class::<Refusal>()?;
    module.add_class::<Entry>()?;
    module.add_class::<Spool>()
}
