//! Usage rows for Python: tuples in the order of COLUMNS, and what many of them share told apart from their own.
//!
//! A row costs what its values cost to make, so all that repeats from row to row is made once and kept.

use std::collections::{BTreeMap, HashMap};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyString, PyTuple};

use crate::shared::{Batch, FLAG_BACKEND, FLAG_CACHED, FLAG_ESTIMATED, Facts, OUTCOMES, Row, text};

const COLUMNS: [&str; 25] = [
    "id",
    "request_id",
    "api_key_id",
    "tenant_id",
    "user_id",
    "tier",
    "endpoint",
    "model_used",
    "backend",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "total_tokens",
    "usage_estimated",
    "cost_usd",
    "cost_nano_usd",
    "llm_request",
    "response_cached",
    "response_time_ms",
    "ttft_ms",
    "status_code",
    "outcome",
    "error_message",
    "created_at",
];
/// So many kinds of rows are kept; those of errors in words of their own come once.
const MOST_KINDS: usize = 4096;
const MOST_SHARED: usize = 16;
const NS_PER_MS: u64 = 1_000_000;

type Tuples<'py> = Vec<Bound<'py, PyTuple>>;

/// Values of earlier rows.
#[derive(Default)]
pub struct Known {
    kinds: Vec<Kind>,
    places: HashMap<Vec<u8>, usize>,
    /// What the row at hand is looked up by.
    sought: Vec<u8>,
    time: Time,
}

/// What rows of a kind share.
struct Kind {
    /// key, tenant, user, tier, route, model, backend.
    names: [Py<PyAny>; 7],
    error: Py<PyAny>,
    outcome: Py<PyAny>,
    status: Py<PyAny>,
}

/// The last row's time.
#[derive(Default)]
struct Time {
    ms: u64,
    text: String,
    object: Option<Py<PyString>>,
}

impl Known {
    fn kind(&mut self, py: Python<'_>, texts: &[&[u8]; 9], facts: &Facts) -> PyResult<&Kind> {
        let [key, tenant, user, tier, route, model, _, backend, error] = *texts;
        self.sought.clear();
        self.sought.push(facts.outcome);
        self.sought.extend_from_slice(&facts.status.to_le_bytes());
        for text in [key, tenant, user, tier, route, model, backend, error] {
            self.sought.push(text.len().min(255) as u8);
            self.sought.extend_from_slice(text);
        }
        let place = match self.places.get(&self.sought) {
            Some(&place) => place,
            None => self.add(Kind::new(py, texts, facts)),
        };
        self.kinds
            .get(place)
            .ok_or_else(|| PyValueError::new_err("a kind of rows was lost"))
    }

    fn add(&mut self, kind: Kind) -> usize {
        if self.kinds.len() >= MOST_KINDS {
            self.kinds.clear();
            self.places.clear();
        }
        let place = self.kinds.len();
        self.kinds.push(kind);
        self.places.insert(self.sought.clone(), place);
        place
    }
}

impl Kind {
    fn new(py: Python<'_>, texts: &[&[u8]; 9], facts: &Facts) -> Self {
        let [key, tenant, user, tier, route, model, _, backend, error] = *texts;
        let outcome = OUTCOMES.get(usize::from(facts.outcome)).unwrap_or(&"lost");
        Self {
            names: [key, tenant, user, tier, route, model, backend]
                .map(|text| text_of(py, text).unbind()),
            error: text_of(py, error).unbind(),
            outcome: PyString::intern(py, outcome).into_any().unbind(),
            status: PyInt::new(py, facts.status).into_any().unbind(),
        }
    }
}

impl Time {
    fn object<'py>(&mut self, py: Python<'py>, wall_ns: u64) -> Bound<'py, PyAny> {
        let ms = wall_ns / NS_PER_MS;
        if let Some(object) = self.object.as_ref().filter(|_| ms == self.ms) {
            return object.bind(py).clone().into_any();
        }
        if self.object.is_none() || ms / 1000 != self.ms / 1000 {
            self.text = text(wall_ns);
        } else {
            let digit = |power: u64| char::from(b'0' + (ms / power % 10) as u8);
            self.text.truncate(self.text.len() - 3);
            self.text.extend([digit(100), digit(10), digit(1)]);
        }
        self.ms = ms;
        let object = PyString::new(py, &self.text);
        self.object = Some(object.clone().unbind());
        object.into_any()
    }
}

/// A row in the order of COLUMNS. Empty texts are None; so are times that are not known.
pub fn tuple_of<'py>(
    py: Python<'py>,
    batch: &Batch,
    row: &Row,
    known: &mut Known,
) -> PyResult<Bound<'py, PyTuple>> {
    let texts = batch.texts(row);
    let facts = &row.facts;
    let created_at = known.time.object(py, row.wall);
    let kind = known.kind(py, &texts, facts)?;
    let [key, tenant, user, tier, route, model, backend] =
        kind.names.each_ref().map(|name| name.bind(py).clone());
    let flag = |flag: u8| PyInt::new(py, u8::from(facts.flags & flag != 0)).into_any();
    let total = facts.prompt.saturating_add(facts.completion);
    let cost_usd = PyFloat::new(py, facts.nano_usd as f64 / 1e9).into_any();
    let values: [Bound<'py, PyAny>; 25] = [
        number(py, row.id),
        text_of(py, texts[6]),
        key,
        tenant,
        user,
        tier,
        route,
        model,
        backend,
        number(py, facts.prompt),
        number(py, facts.completion),
        number(py, facts.cached),
        number(py, facts.reasoning),
        number(py, total),
        flag(FLAG_ESTIMATED),
        cost_usd,
        number(py, facts.nano_usd),
        flag(FLAG_BACKEND),
        flag(FLAG_CACHED),
        time_of(py, facts.ms),
        time_of(py, facts.ttft_ms),
        kind.status.bind(py).clone(),
        kind.outcome.bind(py).clone(),
        kind.error.bind(py).clone(),
        created_at,
    ];
    PyTuple::new(py, values)
}

fn text_of<'py>(py: Python<'py>, text: &[u8]) -> Bound<'py, PyAny> {
    match text {
        [] => py.None().into_bound(py),
        _ => PyString::new(py, &String::from_utf8_lossy(text)).into_any(),
    }
}

fn time_of(py: Python<'_>, ms: f64) -> Bound<'_, PyAny> {
    match ms >= 0.0 && ms.is_finite() {
        true => PyFloat::new(py, ms).into_any(),
        false => py.None().into_bound(py),
    }
}

/// At most what a database's signed 64 bits hold.
fn number(py: Python<'_>, value: u64) -> Bound<'_, PyAny> {
    PyInt::new(py, i64::try_from(value).unwrap_or(i64::MAX)).into_any()
}

/// What rows share told apart from their own, so that a database is given what they share once.
///
/// shared: the places of the values that many have in common, at most 16 of them. The first result has each
/// combination of these once, its number before it: values are the same if they are one object, so equal ones may come
/// twice. The second has all other values of `chunk` rows, one row behind the other and each with its number at its
/// end; rows that fill no chunk are left out. Raises ValueError for rows of different lengths.
#[pyfunction]
fn share_values<'py>(
    py: Python<'py>,
    rows: Vec<Bound<'py, PyTuple>>,
    shared: Vec<usize>,
    chunk: usize,
) -> PyResult<(Tuples<'py>, Tuples<'py>)> {
    if shared.len() > MOST_SHARED {
        return Err(PyValueError::new_err("at most 16 values can be shared"));
    }
    let width = rows.first().map_or(0, |row| row.len());
    let own: Vec<usize> = (0..width).filter(|place| !shared.contains(place)).collect();
    let mut numbers = BTreeMap::new();
    let (mut shares, mut chunks) = (Vec::new(), Vec::new());
    for part in rows.chunks_exact(chunk.max(1)) {
        let mut values = Vec::with_capacity(part.len() * (own.len() + 1));
        for row in part {
            if row.len() != width {
                return Err(PyValueError::new_err("rows must be equally long"));
            }
            let mut objects = [0; MOST_SHARED];
            for (object, &place) in objects.iter_mut().zip(&shared) {
                *object = row.get_borrowed_item(place)?.as_ptr() as usize;
            }
            let number = match numbers.get(&objects) {
                Some(&number) => number,
                None => {
                    let number = shares.len();
                    shares.push(share(py, row, &shared, number)?);
                    numbers.insert(objects, number);
                    number
                }
            };
            for &place in &own {
                values.push(row.get_item(place)?);
            }
            values.push(PyInt::new(py, number).into_any());
        }
        chunks.push(PyTuple::new(py, values)?);
    }
    Ok((shares, chunks))
}

fn share<'py>(
    py: Python<'py>,
    row: &Bound<'py, PyTuple>,
    shared: &[usize],
    number: usize,
) -> PyResult<Bound<'py, PyTuple>> {
    let mut values = vec![PyInt::new(py, number).into_any()];
    for &place in shared {
        values.push(row.get_item(place)?);
    }
    PyTuple::new(py, values)
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("COLUMNS", PyTuple::new(module.py(), COLUMNS)?)?;
    module.add_function(wrap_pyfunction!(share_values, module)?)
}
