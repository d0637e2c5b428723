//! Rings for Python.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::rows::{self, Known};
use super::shared::State;
use crate::shared;

/// The drainer's view of all rings of a folder.
#[pyclass(frozen, module = "penstock.ext._native")]
struct Rings {
    rings: shared::Rings,
    known: Mutex<Known>,
}

#[pymethods]
impl Rings {
    #[new]
    fn new(folder: PathBuf, state: &State) -> Self {
        Rings {
            rings: shared::Rings::new(&folder, state.0.clone()),
            known: Mutex::default(),
        }
    }

    /// At most `limit` closed records as rows in the order of COLUMNS. Rings nobody owns are settled first.
    fn take<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let batch = py.detach(|| self.rings.take(limit))?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        batch
            .rows
            .iter()
            .map(|row| rows::tuple_of(py, &batch, row, &mut known))
            .collect()
    }

    /// The rows of the last take are stored: their records are free.
    fn free(&self, py: Python<'_>) {
        py.detach(|| self.rings.free());
    }

    /// Records closed and not freed yet.
    #[getter]
    fn waiting(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(py.detach(|| self.rings.counts())?.waiting)
    }

    #[getter]
    fn open(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(py.detach(|| self.rings.counts())?.open)
    }

    /// Records of all rings, in whatever state.
    #[getter]
    fn capacity(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(py.detach(|| self.rings.counts())?.capacity)
    }

    /// Rings with a living owner.
    #[getter]
    fn owned(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(py.detach(|| self.rings.counts())?.owned)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Rings>()
}
