//! Spool, Entry and Refusal for Python.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::access_line::{LogLines, Text};
use super::http1::RequestHead;
use super::json::Peek;
use super::quote::Quote;
use super::reply::Usage;
use super::shared::{Account, Count, State, error_of};
use super::tariff::{Need, Tariff};
use crate::access_line::AccessLine;
use crate::shared::{
    self, Admission, Clock, Demand, FLAG_BACKEND, FLAG_CACHED, FLAG_ESTIMATED, Facts, Names,
    OUTCOME_ANSWERED, OUTCOMES, Texts, Wait, Words,
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
        let mut lines = Vec::new();
        self.account
            .push_header_lines(&mut lines, &self.words, limit, &self.clock);
        lines
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
    /// What it would have needed.
    #[pyo3(get)]
    tokens: u64,
    #[pyo3(get)]
    nano_usd: u64,
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
pub(super) struct Entry {
    spool: Arc<shared::Spool>,
    slot: usize,
    closed: AtomicBool,
    /// The cap to be written into the request; 0 = none.
    #[pyo3(get)]
    output_cap: u64,
    /// The request has to ask for its usage.
    #[pyo3(get)]
    ask_usage: bool,
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
        self.end(&facts, backend, error);
        Ok(())
    }

    /// Ends the record of a request that was simply answered, and writes its access line: the two ends of nearly every
    /// request in one call. Returns its cost in nano-USD. Times in s of one clock.
    #[expect(clippy::too_many_arguments)]
    #[pyo3(signature = (
        quote, usage, backend, status, attempts, started, first_byte, ended, log, wall_ns, request_id, head, method,
        path, route, model, ip, /
    ))]
    fn settle(
        &self,
        py: Python<'_>,
        quote: &Quote,
        usage: &Usage,
        backend: &str,
        status: u16,
        attempts: i64,
        started: f64,
        first_byte: f64,
        ended: f64,
        log: Option<&LogLines>,
        wall_ns: Count,
        request_id: &[u8],
        head: &RequestHead,
        method: Text<'_>,
        path: &[u8],
        route: Text<'_>,
        model: Option<Text<'_>>,
        ip: Text<'_>,
    ) -> u64 {
        let used = usage.counts();
        let nano_usd = quote.spent(usage);
        let facts = Facts {
            outcome: OUTCOME_ANSWERED,
            flags: FLAG_BACKEND,
            status,
            prompt: used.prompt_tokens,
            completion: used.completion_tokens,
            cached: used.cached_tokens,
            reasoning: used.reasoning_tokens,
            nano_usd,
            ms: (ended - started) * 1000.0,
            ttft_ms: (first_byte - started) * 1000.0,
        };
        self.end(&facts, backend.as_bytes(), b"");
        if let Some(log) = log {
            let names = self.told.as_ref().map(|told| &told.account.names);
            let name = |of: fn(&Names) -> &[u8]| std::str::from_utf8(names.map_or(b"", of)).ok();
            let line = AccessLine {
                timestamp: "",
                level: "info",
                request_id,
                method: method.0,
                path,
                route: route.0,
                status: i64::from(status),
                started,
                ended,
                first_byte,
                ip: ip.0,
                user_agent: head.user_agent_bytes(py),
                key_id: name(|names| &names.key),
                user_id: name(|names| &names.user),
                tenant_id: name(|names| &names.tenant),
                model: model.map(|model| model.0),
                backend: Some(backend),
                attempts,
                prompt_tokens: i64::try_from(used.prompt_tokens).ok(),
                completion_tokens: i64::try_from(used.completion_tokens).ok(),
                cost_nano: i64::try_from(nano_usd).unwrap_or(i64::MAX),
                fault: None,
                error: None,
                detail: None,
            };
            log.request(&line, wall_ns.0);
        }
        nano_usd
    }
}

impl Entry {
    fn end(&self, facts: &Facts, backend: &[u8], error: &[u8]) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.spool.close(self.slot, facts, backend, error);
        }
    }

    /// Appends the header lines.
    pub(super) fn push_lines(&self, out: &mut Vec<u8>) {
        if let Some(told) = &self.told {
            told.account
                .push_header_lines(out, &told.words, None, &told.clock);
        }
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A worker's ring of records.
#[pyclass(frozen, module = "penstock.ext._native")]
struct Spool(Arc<shared::Spool>);

impl Spool {
    fn entry(
        &self,
        py: Python<'_>,
        slot: usize,
        told: Option<Told>,
        need: &Need,
    ) -> PyResult<Py<PyAny>> {
        let entry = Entry {
            spool: self.0.clone(),
            slot,
            closed: AtomicBool::new(false),
            output_cap: need.output_cap,
            ask_usage: need.ask_usage,
            told,
        };
        Ok(Bound::new(py, entry)?.into_any().unbind())
    }

    /// An Entry or a Refusal; None if the ring is full.
    fn admitted(
        &self,
        py: Python<'_>,
        account: &Arc<shared::Account>,
        texts: &Texts<'_>,
        need: &Need,
        llm_requests: u64,
        clock: Clock,
    ) -> PyResult<Option<Py<PyAny>>> {
        let demand = Demand {
            requests: 1,
            llm_requests,
            tokens: need.tokens,
            nano_usd: need.nano_usd,
            in_flight: 1,
        };
        let told = |words| Told {
            account: account.clone(),
            words,
            clock,
        };
        let admission = self.0.admit(account, texts, &demand, &clock);
        match admission.map_err(error_of)? {
            Admission::Open { slot, words } => {
                self.entry(py, slot, Some(told(words)), need).map(Some)
            }
            Admission::Refused { index, wait, words } => {
                let (wait_ns, never) = match wait {
                    Wait::Ns(ns) => (ns, false),
                    Wait::Never => (0, true),
                };
                let refusal = Refusal {
                    tokens: need.tokens,
                    nano_usd: need.nano_usd,
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
        let texts = Texts {
            route,
            model,
            request_id,
        };
        let need = Need {
            tokens: tokens.0,
            nano_usd: nano_usd.0,
            ..Need::default()
        };
        let clock = Clock::new(now_ns.0, wall_ns.0);
        self.admitted(py, &account.account, &texts, &need, 1, clock)
    }

    /// `admit` with what the tariff says the request needs; of an account that limits neither tokens nor money, nothing.
    #[expect(clippy::too_many_arguments)]
    fn admit_by(
        &self,
        py: Python<'_>,
        account: &Account,
        tariff: &Tariff,
        request_id: &[u8],
        facts: &Peek,
        body: &[u8],
        tier: Option<u64>,
        now_ns: Count,
        wall_ns: Count,
    ) -> PyResult<Option<Py<PyAny>>> {
        let need = match account.bounded {
            true => tariff.need(facts, body, tier),
            false => Need::default(),
        };
        let texts = Texts {
            route: &tariff.route,
            model: &tariff.model,
            request_id,
        };
        let clock = Clock::new(now_ns.0, wall_ns.0);
        self.admitted(py, &account.account, &texts, &need, 1, clock)
    }

    /// `admit` for an answer that needs no backend: no LLM request, no tokens, no money.
    fn admit_hit(
        &self,
        py: Python<'_>,
        account: &Account,
        tariff: &Tariff,
        request_id: &[u8],
        now_ns: Count,
        wall_ns: Count,
    ) -> PyResult<Option<Py<PyAny>>> {
        let texts = Texts {
            route: &tariff.route,
            model: &tariff.model,
            request_id,
        };
        let clock = Clock::new(now_ns.0, wall_ns.0);
        self.admitted(py, &account.account, &texts, &Need::default(), 0, clock)
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
            Some(slot) => self.entry(py, slot, None, &Need::default()).map(Some),
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
