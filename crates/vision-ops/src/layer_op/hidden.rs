//! Activations that pass from layer to layer beside Candle's graph.
//!
//! For each edge of its graph Candle makes zeros of the size of the activation and adds the gradient to them. Where only the next
//! layer ever sees an activation there is nothing to add up, so the graph holds a scalar in its place: the elements go from layer
//! to layer in a [`Hidden`], and the gradient comes back the same way, under a ticket that is the scalar's gradient.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use candle_core::{CpuStorage, Device, Error, Result, Shape, Tensor, WithDType};

use crate::error::backward_too_early;

/// The elements of an activation, and those of its gradients that are on their way.
#[derive(Default)]
pub(crate) struct Hidden {
    values: OnceLock<CpuStorage>,
    gradients: Mutex<HashMap<u64, CpuStorage>>,
    tickets: AtomicU64,
}

impl Hidden {
    /// The scalar that stands for the activation in Candle's graph. f64 holds every ticket that can come to be.
    pub(super) fn stand_in() -> (CpuStorage, Shape) {
        (CpuStorage::F64(vec![0.0]), Shape::from(()))
    }

    pub(super) fn set(&self, values: CpuStorage) {
        // Candle runs an op's forward once; were it run again, the values would be the same.
        let _ = self.values.set(values);
    }

    pub(super) fn values(&self, op: &str) -> Result<&CpuStorage> {
        self.values.get().ok_or_else(|| backward_too_early(op))
    }

    /// Keeps a gradient and returns that of the scalar: a ticket of its own, since several backward passes of one graph may
    /// be on their way at once.
    pub(super) fn leave<T: WithDType>(&self, gradient: Vec<T>) -> Result<Tensor> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        self.gradients()
            .insert(ticket, T::to_cpu_storage_owned(gradient));
        Tensor::new(ticket as f64, &Device::Cpu)
    }

    /// The gradient that was left for this ticket.
    pub(super) fn take(&self, op: &str, ticket: &Tensor) -> Result<CpuStorage> {
        let ticket = ticket.to_scalar::<f64>()?;
        let gradient = self.gradients().remove(&(ticket as u64));
        gradient.ok_or_else(|| {
            Error::Msg(format!(
                "{op}: no gradient has come from the layer behind (ticket {ticket})"
            ))
        })
    }

    /// Each insertion and removal is whole, also where a thread panicked that held the lock.
    fn gradients(&self) -> MutexGuard<'_, HashMap<u64, CpuStorage>> {
        self.gradients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// An activation between two layers: in Candle's graph, or hidden from it.
pub(crate) struct Activation {
    /// What the graph knows: the activation itself, or the scalar that stands for it.
    pub(super) node: Tensor,
    pub(super) hidden: Option<Arc<Hidden>>,
}

impl Activation {
    pub(crate) fn visible(tensor: &Tensor) -> Self {
        Self {
            node: tensor.clone(),
            hidden: None,
        }
    }

    /// The activation as a tensor; it is not hidden.
    pub(crate) fn into_tensor(self) -> Tensor {
        debug_assert!(self.hidden.is_none());
        self.node
    }
}
