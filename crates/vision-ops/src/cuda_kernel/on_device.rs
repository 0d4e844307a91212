//! A computation on CUDA storages as an op of tensors, for backward passes: nothing is recorded for autograd.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail,
};

type One<'a> = (&'a CudaStorage, &'a Layout);

/// A function of the CUDA storages of one or two tensors, to be applied once.
pub(crate) struct OnDevice<F> {
    name: &'static str,
    f: F,
}

impl<F> OnDevice<F> {
    pub(crate) fn new(name: &'static str, f: F) -> Self {
        Self { name, f }
    }

    fn on_the_cpu<T>(&self) -> Result<T> {
        bail!(
            "{}: expected tensors on a CUDA device, got one on the CPU",
            self.name
        )
    }
}

impl<F: Fn(One<'_>) -> Result<(CudaStorage, Shape)>> OnDevice<F> {
    pub(crate) fn of(&self, a: &Tensor) -> Result<Tensor> {
        a.apply_op1_no_bwd(&Unary(self))
    }
}

impl<F: Fn(One<'_>, One<'_>) -> Result<(CudaStorage, Shape)>> OnDevice<F> {
    pub(crate) fn of_both(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        a.apply_op2_no_bwd(b, &Binary(self))
    }
}

struct Unary<'a, F>(&'a OnDevice<F>);
struct Binary<'a, F>(&'a OnDevice<F>);

impl<F: Fn(One<'_>) -> Result<(CudaStorage, Shape)>> CustomOp1 for Unary<'_, F> {
    fn name(&self) -> &'static str {
        self.0.name
    }
    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.on_the_cpu()
    }
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        (self.0.f)((storage, layout))
    }
}

impl<F: Fn(One<'_>, One<'_>) -> Result<(CudaStorage, Shape)>> CustomOp2 for Binary<'_, F> {
    fn name(&self) -> &'static str {
        self.0.name
    }
    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.0.on_the_cpu()
    }
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        (self.0.f)((s1, l1), (s2, l2))
    }
}
