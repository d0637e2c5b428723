//! State, Limits and Account for Python.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::shared::{self, Clock, Demand, Limit, Measure, Names, Wait, Window};

create_exception!(
    penstock.ext._native,
    StateFull,
    PyException,
    "The table of limits has no room for another one."
);

/// What `shared` fails with, as Python says it.
pub fn error_of(error: shared::Error) -> PyErr {
    match error {
        shared::Error::Io(error) => error.into(),
        shared::Error::Full => StateFull::new_err("no room for another limit's cell"),
        shared::Error::Mismatch => PyValueError::new_err("the cell exists with another window"),
    }
}

/// What all processes of one state_dir share: the cells of all limits, and a few facts.
#[pyclass(frozen, module = "penstock.ext._native")]
pub struct State(pub Arc<shared::State>);

#[pymethods]
impl State {
    #[new]
    #[pyo3(signature = (path, boot_id, cells=262_144))]
    fn new(py: Python<'_>, path: PathBuf, boot_id: &[u8], cells: usize) -> PyResult<Self> {
        let state = py.detach(|| shared::State::open(&path, boot_id, cells));
        // The file is named in the error, as open() in Python does.
        let named = |error: std::io::Error| match error.raw_os_error() {
            Some(number) => PyOSError::new_err((number, error.to_string(), path.clone())),
            None => error.into(),
        };
        Ok(State(Arc::new(state.map_err(named)?)))
    }

    /// Made now.
    #[getter]
    fn fresh(&self) -> bool {
        self.0.fresh
    }

    /// Sets a calendar cell to an amount used in the window of wall_ns.
    fn seed(&self, cell: u64, window: u64, wall_ns: u64, amount: u64) -> PyResult<()> {
        let window = calendar(window)?;
        let clock = Clock::new(0, wall_ns);
        self.0
            .seed(shared::key_of(cell), window, amount, &clock)
            .map_err(error_of)
    }

    /// What a cell counts in the window of wall_ns.
    fn used(&self, cell: u64, window: u64, wall_ns: u64) -> PyResult<u64> {
        let window = window_of(window)?;
        if window == Window::Bucket {
            return Err(PyValueError::new_err(
                "what a bucket has used depends on its limit",
            ));
        }
        Ok(self
            .0
            .used(shared::key_of(cell), window, &Clock::new(0, wall_ns)))
    }

    #[getter]
    fn keys_generation(&self) -> u64 {
        self.0.keys_generation()
    }

    /// The new generation.
    fn bump_keys(&self) -> u64 {
        self.0.bump_keys()
    }

    #[getter]
    fn note<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.note())
    }

    #[setter]
    fn set_note(&self, note: &[u8]) -> PyResult<()> {
        if note.len() > shared::MAX_NOTE_BYTES {
            return Err(PyValueError::new_err("a note has at most 512 bytes"));
        }
        Ok(self.0.set_note(note)?)
    }

    /// The keeper lives.
    fn beat(&self, now_ns: u64) {
        self.0.beat(now_ns);
    }

    #[getter]
    fn beaten_ns(&self) -> u64 {
        self.0.beaten_ns()
    }

    /// Removes the cells that equal new ones; how many.
    fn sweep(&self, py: Python<'_>, now_ns: u64, wall_ns: u64) -> PyResult<u64> {
        Ok(py.detach(|| self.0.sweep(&Clock::new(now_ns, wall_ns)))?)
    }

    #[getter]
    fn cells_used(&self) -> u64 {
        self.0.cells_used()
    }

    /// Lowers in-flight cells to what the open records of all rings hold; how many were lowered.
    fn reconcile(&self, py: Python<'_>, folder: PathBuf) -> PyResult<u64> {
        Ok(py.detach(|| shared::reconcile(&self.0, &folder))?)
    }
}

/// A number from 0 to 2**64 - 1, as u64 but faster: CPython reads the numbers that fit an i64 in a third of the time.
#[derive(Clone, Copy)]
pub struct Count(pub u64);

impl<'py> FromPyObject<'_, 'py> for Count {
    type Error = PyErr;

    #[inline]
    fn extract(value: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<i64>() {
            Ok(number @ 0..) => Ok(Count(number.unsigned_abs())),
            _ => value.extract().map(Count),
        }
    }
}

/// A limit as Python writes it: name, cell, measure, window, period_ns, amount.
type LimitTuple<'a> = (Bound<'a, PyBytes>, u64, u64, u64, u64, i64);

fn limits_of(tuples: Vec<LimitTuple<'_>>) -> PyResult<Vec<Limit>> {
    tuples.iter().map(limit_of).collect()
}

fn limit_of((name, cell, measure, window, period, amount): &LimitTuple<'_>) -> PyResult<Limit> {
    let measure = Measure::of(*measure)
        .ok_or_else(|| PyValueError::new_err("measure must be one of the MEASURE_ constants"))?;
    let window = window_of(*window)?;
    Limit::new(name.as_bytes(), *cell, measure, window, *period, *amount)
        .map_err(PyValueError::new_err)
}

fn window_of(number: u64) -> PyResult<Window> {
    Window::of(number)
        .ok_or_else(|| PyValueError::new_err("window must be one of the WINDOW_ constants"))
}

fn calendar(number: u64) -> PyResult<Window> {
    match window_of(number)? {
        Window::Bucket | Window::None => {
            Err(PyValueError::new_err("only calendar cells can be seeded"))
        }
        window => Ok(window),
    }
}

/// A few limits that are taken all or nothing, without a record.
#[pyclass(frozen, module = "penstock.ext._native")]
struct Limits {
    state: Arc<shared::State>,
    limits: Box<[Limit]>,
}

#[pymethods]
impl Limits {
    #[new]
    fn new(state: &State, limits: Vec<LimitTuple<'_>>) -> PyResult<Self> {
        let limits = limits_of(limits)?;
        if limits
            .iter()
            .any(|limit| limit.measure == Measure::InFlight)
        {
            return Err(PyValueError::new_err(
                "in flight needs a record to be given back",
            ));
        }
        Ok(Limits {
            state: state.0.clone(),
            limits: limits.into(),
        })
    }

    /// Takes 1 of each: 0, or the ns until it can be, with nothing taken.
    fn take(&self, now_ns: Count, wall_ns: Count) -> PyResult<u64> {
        let one = Demand {
            requests: 1,
            llm_requests: 1,
            tokens: 1,
            nano_usd: 1,
            in_flight: 0,
        };
        let clock = Clock::new(now_ns.0, wall_ns.0);
        let taken = shared::take_all(&self.state, &self.limits, &one, &clock).map_err(error_of)?;
        Ok(match taken {
            Ok(()) => 0,
            Err((_, Wait::Ns(ns))) => ns,
            Err((_, Wait::Never)) => i64::MAX as u64,
        })
    }
}

/// A principal's limits and names.
#[pyclass(frozen, module = "penstock.ext._native")]
pub struct Account {
    state: Arc<shared::State>,
    pub account: Arc<shared::Account>,
    /// Tokens or money are limited.
    pub bounded: bool,
}

type StandingTuple<'py> = (Bound<'py, PyBytes>, u8, u8, i64, u64, u64);

#[pymethods]
impl Account {
    #[new]
    fn new(
        state: &State,
        limits: Vec<LimitTuple<'_>>,
        key_id: &[u8],
        tenant_id: &[u8],
        user_id: &[u8],
        tier: &[u8],
    ) -> PyResult<Self> {
        let names = Names {
            key: key_id.into(),
            tenant: tenant_id.into(),
            user: user_id.into(),
            tier: tier.into(),
        };
        let account =
            shared::Account::new(limits_of(limits)?, names).map_err(PyValueError::new_err)?;
        Ok(Account {
            state: state.0.clone(),
            bounded: [Measure::Tokens, Measure::NanoUsd]
                .into_iter()
                .any(|measure| account.limits_measure(measure)),
            account: Arc::new(account),
        })
    }

    /// One of its limits, not only a meter, counts tokens.
    #[getter]
    fn has_tokens(&self) -> bool {
        self.account.limits_measure(Measure::Tokens)
    }

    /// One of its limits, not only a meter, counts money.
    #[getter]
    fn has_money(&self) -> bool {
        self.account.limits_measure(Measure::NanoUsd)
    }

    /// Of every limit and meter: name, measure, window, amount, used, ns until it resets.
    fn standing<'py>(&self, py: Python<'py>, now_ns: u64, wall_ns: u64) -> Vec<StandingTuple<'py>> {
        let words = self.account.words(&self.state);
        let clock = Clock::new(now_ns, wall_ns);
        let lines = self
            .account
            .standing(&words, &clock)
            .map(|(limit, standing)| {
                let amount = limit.rule.amount.map_or(-1, |amount| amount as i64);
                let (measure, window) = (limit.measure as u8, limit.rule.window as u8);
                (
                    PyBytes::new(py, &limit.name),
                    measure,
                    window,
                    amount,
                    standing.used,
                    standing.resets_in,
                )
            });
        lines.collect()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, measure) in [
        ("MEASURE_REQUESTS", Measure::Requests),
        ("MEASURE_LLM_REQUESTS", Measure::LlmRequests),
        ("MEASURE_TOKENS", Measure::Tokens),
        ("MEASURE_NANO_USD", Measure::NanoUsd),
        ("MEASURE_IN_FLIGHT", Measure::InFlight),
    ] {
        module.add(name, measure as u8)?;
    }
    for (name, window) in [
        ("WINDOW_BUCKET", Window::Bucket),
        ("WINDOW_HOUR", Window::Hour),
        ("WINDOW_DAY", Window::Day),
        ("WINDOW_MONTH", Window::Month),
        ("WINDOW_NONE", Window::None),
    ] {
        module.add(name, window as u8)?;
    }
    module.add("UNLIMITED", -1)?;
    module.add("StateFull", module.py().get_type::<StateFull>())?;
    module.add_class::<State>()?;
    module.add_class::<Limits>()?;
    module.add_class::<Account>()
}
