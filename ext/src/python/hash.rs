//! KeyHasher for Python.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::http1::RequestHead;
use crate::hash;

/// HMAC-SHA-256 under one secret.
#[pyclass(frozen, module = "penstock.ext._native")]
struct KeyHasher(hash::KeyHasher);

#[pymethods]
impl KeyHasher {
    #[new]
    fn new(secret: &[u8]) -> PyResult<Self> {
        let hasher = hash::KeyHasher::new(secret);
        hasher
            .map(Self)
            .ok_or_else(|| PyValueError::new_err("the secret is empty"))
    }

    /// The digest of the credential a request carries; None if it has none, two, or one of more than `longest` bytes.
    fn digest_of<'py>(
        &self,
        py: Python<'py>,
        head: &RequestHead,
        longest: usize,
    ) -> Option<Bound<'py, PyBytes>> {
        let key = head.credential().filter(|key| key.len() <= longest)?;
        Some(PyBytes::new(py, &self.0.digest(key)))
    }

    fn digest<'py>(&self, py: Python<'py>, key: &[u8]) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.digest(key))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<KeyHasher>()
}
