//! Targets, its cells and Balancer for Python.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use super::shared::{Count, StateFull, error_of};
use crate::shared::{
    self, Balance, BreakerRule, Cell, FLAG_DOWN, FLAG_DRAINED, Failure, Kind, MAX_MEMBERS, Member,
    Take,
};

const TAKE_FULL: i64 = -1;
const TAKE_NONE: i64 = -2;
/// Added to the index of a member that is taken as its breaker's probe.
const TAKE_PROBE: usize = MAX_MEMBERS;

/// What all processes of one state_dir know of its backends and targets.
#[pyclass(frozen, module = "penstock.ext._native")]
struct Targets(Arc<shared::Targets>);

#[pymethods]
impl Targets {
    #[new]
    #[pyo3(signature = (path, boot_id, backends=512, targets=4096))]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        boot_id: &[u8],
        backends: usize,
        targets: usize,
    ) -> PyResult<Self> {
        let opened = py.detach(|| shared::Targets::open(&path, boot_id, backends, targets));
        // The file is named in the error, as open() in Python does.
        let named = |error: std::io::Error| match error.raw_os_error() {
            Some(number) => PyOSError::new_err((number, error.to_string(), path.clone())),
            None => error.into(),
        };
        Ok(Targets(Arc::new(opened.map_err(named)?)))
    }

    #[getter]
    fn slot(&self) -> usize {
        self.0.slot()
    }

    /// The backend's cell, which is made if there is none.
    fn backend(&self, id: u64) -> PyResult<BackendCell> {
        let cell = self.cell(Kind::Backend, id)?;
        Ok(BackendCell { id, cell })
    }

    /// The target's cell, which is made if there is none.
    fn target(&self, id: u64) -> PyResult<TargetCell> {
        let cell = self.cell(Kind::Target, id)?;
        Ok(TargetCell { id, cell })
    }

    /// Takes away what processes held that are no more; of how many.
    fn sweep(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(py.detach(|| self.0.sweep())?)
    }

    /// Tries to be, or to stay, the one that leads.
    fn lead(&self) -> PyResult<bool> {
        Ok(self.0.lead()?)
    }

    #[getter]
    fn generation(&self) -> u64 {
        self.0.generation()
    }

    /// The new generation.
    fn bump(&self) -> u64 {
        self.0.bump()
    }

    #[getter]
    fn waiting(&self) -> u64 {
        self.0.waiting()
    }

    /// A tag for a request of this key, which waits from now on.
    fn join_line(&self, key: u64) -> u64 {
        self.0.join_line(key)
    }

    /// It waits no more.
    fn leave_line(&self, tag: u64) {
        let _ = tag;
        self.0.leave_line();
    }

    fn served(&self, tag: u64) {
        self.0.served(tag);
    }

    /// About how many wait with lower tags in other processes.
    fn ahead(&self, tag: u64) -> u64 {
        self.0.ahead(tag)
    }
}

impl Targets {
    fn cell(&self, kind: Kind, id: u64) -> PyResult<Arc<Cell>> {
        let cell = Cell::of(&self.0, kind, id).map_err(|error| match error {
            shared::Error::Full => StateFull::new_err("no room for another target's cell"),
            other => error_of(other),
        });
        Ok(Arc::new(cell?))
    }
}

/// A backend, as all processes see it.
#[pyclass(frozen, module = "penstock.ext._native")]
struct BackendCell {
    #[pyo3(get)]
    id: u64,
    cell: Arc<Cell>,
}

#[pymethods]
impl BackendCell {
    #[getter]
    fn in_flight(&self) -> u64 {
        self.cell.backend().map_or(0, |cell| cell.in_flight())
    }

    #[getter]
    fn waiting(&self) -> u64 {
        self.cell.backend().map_or(0, |cell| cell.waiting())
    }

    #[getter]
    fn drained(&self) -> bool {
        self.has(FLAG_DRAINED)
    }

    #[setter]
    fn set_drained(&self, drained: bool) {
        self.set(FLAG_DRAINED, drained);
    }

    #[getter]
    fn down(&self) -> bool {
        self.has(FLAG_DOWN)
    }

    #[setter]
    fn set_down(&self, down: bool) {
        self.set(FLAG_DOWN, down);
    }

    /// Says what waits here in this process.
    fn wait(&self, lowest_tag: u64, count: u64) {
        if let Some(cell) = self.cell.backend() {
            cell.wait(self.cell.targets.slot(), lowest_tag, count);
        }
    }
}

impl BackendCell {
    fn has(&self, flag: u64) -> bool {
        let cell = self.cell.backend();
        cell.is_some_and(|cell| cell.flags.load(Acquire) & flag != 0)
    }

    fn set(&self, flag: u64, on: bool) {
        if let Some(cell) = self.cell.backend() {
            if on {
                cell.flags.fetch_or(flag, SeqCst);
            } else {
                cell.flags.fetch_and(!flag, SeqCst);
            }
        }
    }
}

/// A backend and the name a model has there, as all processes see it.
#[pyclass(frozen, module = "penstock.ext._native")]
struct TargetCell {
    #[pyo3(get)]
    id: u64,
    cell: Arc<Cell>,
}

#[pymethods]
impl TargetCell {
    #[getter]
    fn latency_ns(&self) -> u64 {
        self.cell.breaker().map_or(0, |cell| cell.latency())
    }

    #[getter]
    fn failures_in_row(&self) -> u64 {
        self.cell.breaker().map_or(0, |cell| cell.failures_in_row())
    }

    /// One of the BREAKER_ constants.
    fn breaker(&self, now_ns: u64) -> u64 {
        self.cell.breaker().map_or(0, |cell| cell.state(now_ns))
    }

    /// (requests, failures) of the window.
    fn window(&self, now_ns: u64) -> (u64, u64) {
        self.cell
            .breaker()
            .map_or((0, 0), |cell| cell.window(now_ns))
    }

    fn retry_in_ns(&self, now_ns: u64) -> u64 {
        self.cell.breaker().map_or(0, |cell| cell.retry_in(now_ns))
    }

    /// A check could connect: a probe may go at once if it is open for want of connections.
    fn probe_early(&self) -> bool {
        self.cell.breaker().is_some_and(|cell| cell.probe_early())
    }

    /// Closed, as new.
    fn reset(&self) {
        if let Some(cell) = self.cell.breaker() {
            cell.reset();
        }
    }
}

/// The targets that one request may go to.
#[pyclass(frozen, module = "penstock.ext._native")]
struct Balancer(shared::Balancer);

type MemberTuple<'py> = (Bound<'py, BackendCell>, Bound<'py, TargetCell>, u64, u64);
type ViewTuple = (bool, &'static str, u64, u64, u64, u64, u64, u64);

#[pymethods]
impl Balancer {
    #[new]
    fn new(
        targets: &Targets,
        members: Vec<MemberTuple<'_>>,
        balance: u64,
        breaker: (u64, f64, u64, u64, u64),
    ) -> PyResult<Self> {
        let balance = balance_of(balance)?;
        let (failures, ratio, window_ns, min_requests, recovery_ns) = breaker;
        let rule = BreakerRule {
            failures,
            ratio,
            window_ns,
            min_requests,
            recovery_ns,
        };
        let members = members.iter().map(member_of).collect::<PyResult<_>>()?;
        let balancer = shared::Balancer::new(targets.0.clone(), members, balance, rule);
        let unfit = || PyValueError::new_err("at most 64 members, and of these targets");
        balancer.map(Balancer).ok_or_else(unfit)
    }

    /// The member whose place is taken now.
    #[pyo3(
        signature = (now_ns, random, avoid=Count(0), tag=Count(0)),
        text_signature = "($self, now_ns, random, avoid=0, tag=0)"
    )]
    fn take(&self, now_ns: Count, random: Count, avoid: Count, tag: Count) -> i64 {
        told(self.0.take(now_ns.0, random.0, avoid.0, tag.0))
    }

    /// A member where nothing is wrong and nobody else is.
    fn take_idle(&self, now_ns: Count, random: Count, avoid: Count) -> i64 {
        told(self.0.take_idle(now_ns.0, random.0, avoid.0))
    }

    fn release(&self, index: Count) {
        let (index, probe) = taken(index);
        self.0.release(index, probe);
    }

    /// True: this closed the breaker.
    fn answered(&self, index: Count, now_ns: Count, latency_ns: Count) -> bool {
        let (index, probe) = taken(index);
        self.0.answered(index, probe, now_ns.0, latency_ns.0)
    }

    /// True: this opened the breaker.
    #[pyo3(signature = (index, now_ns, connect=false, late=false, taken_ns=None))]
    fn failed(
        &self,
        index: Count,
        now_ns: Count,
        connect: bool,
        late: bool,
        taken_ns: Option<u64>,
    ) -> bool {
        let (index, probe) = taken(index);
        let failure = Failure {
            taken: taken_ns.unwrap_or(now_ns.0),
            connect,
            late,
        };
        self.0.failed(index, probe, now_ns.0, failure)
    }

    fn retry_in_ns(&self, now_ns: u64) -> u64 {
        self.0.retry_in(now_ns)
    }

    /// A mask of the members whose place one may wait for.
    #[pyo3(signature = (now_ns, avoid=0))]
    fn full(&self, now_ns: u64, avoid: u64) -> u64 {
        self.0.full(now_ns, avoid)
    }

    /// What one may know of each member.
    fn view(&self, now_ns: u64) -> Vec<ViewTuple> {
        let views = self.0.view(now_ns).into_iter();
        let tuple = |view: shared::View| {
            (
                view.why.is_empty(),
                view.why,
                view.in_flight,
                view.waiting,
                view.breaker,
                view.failures_in_row,
                view.retry_in,
                view.latency,
            )
        };
        views.map(tuple).collect()
    }
}

fn balance_of(number: u64) -> PyResult<Balance> {
    match number {
        0 => Ok(Balance::LeastInFlight),
        1 => Ok(Balance::Weighted),
        2 => Ok(Balance::Latency),
        _ => Err(PyValueError::new_err(
            "balance must be one of the BALANCE_ constants",
        )),
    }
}

fn member_of((backend, target, weight, max_in_flight): &MemberTuple<'_>) -> PyResult<Member> {
    if !(1..=1_000_000).contains(weight) {
        return Err(PyValueError::new_err("a weight is from 1 to 1,000,000"));
    }
    Ok(Member {
        backend: backend.get().cell.clone(),
        target: target.get().cell.clone(),
        weight: *weight,
        max_in_flight: *max_in_flight,
    })
}

fn told(take: Take) -> i64 {
    match take {
        Take::Taken { index, probe } => (index + if probe { TAKE_PROBE } else { 0 }) as i64,
        Take::Full => TAKE_FULL,
        Take::None => TAKE_NONE,
    }
}

/// The member, and whether as its probe.
fn taken(index: Count) -> (usize, bool) {
    let index = usize::try_from(index.0).unwrap_or(usize::MAX);
    (index % TAKE_PROBE, index >= TAKE_PROBE)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, value) in [
        ("BALANCE_LEAST_IN_FLIGHT", 0),
        ("BALANCE_WEIGHTED", 1),
        ("BALANCE_LATENCY", 2),
        ("TAKE_FULL", TAKE_FULL),
        ("TAKE_NONE", TAKE_NONE),
        ("TAKE_PROBE", TAKE_PROBE as i64),
        ("BREAKER_CLOSED", 0),
        ("BREAKER_OPEN", 1),
        ("BREAKER_HALF_OPEN", 2),
    ] {
        module.add(name, value)?;
    }
    module.add_class::<Targets>()?;
    module.add_class::<BackendCell>()?;
    module.add_class::<TargetCell>()?;
    module.add_class::<Balancer>()
}
