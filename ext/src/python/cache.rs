//! cache_key, CacheClears, CacheStore and CacheEntry for Python.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::{PyIndexError, PyMemoryError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::json::JsonError;
use super::shared::Count;
use crate::cache::{self, COUNTS, Kind, Offer, SharedStore, Wanted};

/// 32 bytes that are the same for requests that mean the same.
#[pyfunction]
fn cache_key<'py>(
    py: Python<'py>,
    body: &[u8],
    scope: &[u8],
    model: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let key = cache::cache_key(body, scope, model);
    let key = key.map_err(|error| JsonError::new_err(error.to_string()))?;
    Ok(PyBytes::new(py, &key))
}

fn key_of(key: &[u8]) -> PyResult<&[u8; 32]> {
    let key = key.try_into();
    key.map_err(|_| PyValueError::new_err("a key has 32 bytes"))
}

/// What all workers know of the cache.
#[pyclass(frozen, module = "penstock.ext._native")]
struct CacheClears(Arc<cache::Clears>);

type FiguresTuple<'py> = (Bound<'py, PyBytes>, u64, u64, u64, u64, u64);

#[pymethods]
impl CacheClears {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, boot_id: &[u8]) -> PyResult<Self> {
        let opened = py.detach(|| cache::Clears::open(&path, boot_id));
        // The file is named in the error, as open() in Python does.
        let named = |error: std::io::Error| match error.raw_os_error() {
            Some(number) => PyOSError::new_err((number, error.to_string(), path.clone())),
            None => error.into(),
        };
        Ok(CacheClears(Arc::new(opened.map_err(named)?)))
    }

    /// Tells all stores to forget; the new generation.
    #[pyo3(signature = (kind, name=b"".as_slice()), text_signature = "($self, kind, name=b'')")]
    fn clear(&self, py: Python<'_>, kind: u64, name: &[u8]) -> PyResult<u64> {
        let wrong = || PyValueError::new_err("kind must be one of the CLEAR_ constants");
        let kind = Kind::of(kind).ok_or_else(wrong)?;
        Ok(py.detach(|| self.0.clear(kind, name))?)
    }

    #[getter]
    fn generation(&self) -> u64 {
        self.0.generation()
    }

    #[pyo3(signature = (model, what, n=Count(1)), text_signature = "($self, model, what, n=1)")]
    fn count(&self, model: &[u8], what: usize, n: Count) -> PyResult<()> {
        if what >= COUNTS.len() {
            let text = "what must be one of the CACHE_ constants";
            return Err(PyValueError::new_err(text));
        }
        self.0.count(self.0.row(model), what, n.0);
        Ok(())
    }

    fn figures<'py>(&self, py: Python<'py>) -> Vec<FiguresTuple<'py>> {
        let figures = self.0.figures().into_iter();
        figures
            .map(|(model, [hits, misses, evictions, shared, stored])| {
                let model = PyBytes::new(py, &model);
                (model, hits, misses, evictions, shared, stored)
            })
            .collect()
    }

    #[getter]
    fn entries(&self) -> u64 {
        self.0.entries()
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Takes away the parts of processes that are no more; of how many.
    fn sweep(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(py.detach(|| self.0.sweep())?)
    }
}

/// A worker's part of the cache.
#[pyclass(frozen, module = "penstock.ext._native")]
struct CacheStore {
    store: Arc<SharedStore>,
    #[pyo3(get)]
    max_bytes: usize,
}

type FactTuple<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, u64, u64, u32);

#[pymethods]
impl CacheStore {
    #[new]
    fn new(max_bytes: usize, clears: &CacheClears, max_entry_bytes: usize) -> PyResult<Self> {
        let store = SharedStore::new(max_bytes, clears.0.clone(), max_entry_bytes);
        let store = store.map_err(|error| PyMemoryError::new_err(error.to_string()))?;
        Ok(CacheStore {
            store: Arc::new(store),
            max_bytes,
        })
    }

    #[pyo3(
        signature = (key, now_ns, model=None, stored_from_ns=Count(0), fresh_until_ns=Count(0)),
        text_signature = "($self, key, now_ns, model=None, stored_from_ns=0, fresh_until_ns=0)"
    )]
    fn get(
        &self,
        key: &[u8],
        now_ns: Count,
        model: Option<&[u8]>,
        stored_from_ns: Count,
        fresh_until_ns: Count,
    ) -> PyResult<Option<CacheEntry>> {
        let wanted = Wanted {
            key: key_of(key)?,
            now_ns: now_ns.0,
            stored_from_ns: stored_from_ns.0,
            fresh_until_ns: fresh_until_ns.0,
        };
        let entry = cache::Entry::get(&self.store, &wanted);
        if let (None, Some(model)) = (&entry, model) {
            self.store.lock().missed(model);
        }
        Ok(entry.map(CacheEntry))
    }

    #[expect(clippy::too_many_arguments)]
    #[pyo3(signature = (key, model, tenant, head, chunks, kind, now_ns, ttl_ns, since=None))]
    fn put(
        &self,
        key: &[u8],
        model: &[u8],
        tenant: &[u8],
        head: &[u8],
        chunks: Vec<Bound<'_, PyBytes>>,
        kind: u32,
        now_ns: Count,
        ttl_ns: Count,
        since: Option<u64>,
    ) -> PyResult<bool> {
        let chunks: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.as_bytes()).collect();
        let offer = Offer {
            key: key_of(key)?,
            model,
            tenant,
            head,
            chunks: &chunks,
            kind,
            now_ns: now_ns.0,
            ttl_ns: ttl_ns.0,
            since,
        };
        Ok(self.store.lock().put(&offer))
    }

    #[getter]
    fn entries(&self) -> usize {
        self.store.lock().entries
    }

    #[getter]
    fn bytes(&self) -> usize {
        self.store.lock().bytes()
    }

    /// Those that were stored or found since they were last told.
    fn facts<'py>(&self, py: Python<'py>, limit: usize) -> Vec<FactTuple<'py>> {
        let facts = self.store.lock().facts(limit).into_iter();
        facts
            .map(|fact| {
                let (key, model) = (PyBytes::new(py, &fact.key), PyBytes::new(py, &fact.model));
                (key, model, fact.stored_ns, fact.expires_ns, fact.hits)
            })
            .collect()
    }
}

/// An answer that was found.
#[pyclass(frozen, module = "penstock.ext._native")]
struct CacheEntry(cache::Entry);

#[pymethods]
impl CacheEntry {
    #[getter]
    fn head<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, self.0.head_bytes, |out| {
            self.0.read_head(out);
            Ok(())
        })
    }

    #[getter]
    fn kind(&self) -> u32 {
        self.0.kind
    }

    #[getter]
    fn hits(&self) -> u32 {
        self.0.hits()
    }

    #[getter]
    fn stored_ns(&self) -> u64 {
        self.0.stored_ns
    }

    #[getter]
    fn expires_ns(&self) -> u64 {
        self.0.expires_ns
    }

    fn age_ns(&self, now_ns: Count) -> u64 {
        now_ns.0.saturating_sub(self.0.stored_ns)
    }

    #[getter]
    fn chunks(&self) -> usize {
        self.0.chunks
    }

    fn chunk<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        let found = self.0.find(index);
        let (length, place) = found.ok_or_else(|| PyIndexError::new_err("no such chunk"))?;
        PyBytes::new_with(py, length, |out| {
            self.0.read(place, out);
            Ok(())
        })
    }

    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, self.0.body_bytes, |out| {
            self.0.read_body(out);
            Ok(())
        })
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (number, name) in COUNTS.iter().enumerate() {
        module.add(format!("CACHE_{name}"), number)?;
    }
    for (kind, name) in [
        (Kind::All, "CLEAR_ALL"),
        (Kind::Model, "CLEAR_MODEL"),
        (Kind::Tenant, "CLEAR_TENANT"),
    ] {
        module.add(name, kind as u64)?;
    }
    module.add_class::<CacheClears>()?;
    module.add_class::<CacheStore>()?;
    module.add_class::<CacheEntry>()?;
    module.add_function(wrap_pyfunction!(cache_key, module)?)
}
