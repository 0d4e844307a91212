//! The model: ten named parameters in a fixed order.

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::forward::{self, Forward};
use crate::init::initial_values;

/// Name, shape and fan-in of one parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterSpec {
    /// PyTorch's name, for example `conv1.weight`.
    pub name: &'static str,
    /// The dimensions: (out, in, kernel height, kernel width) for a convolution's weight, (out, in) for a dense layer's, (out) for a bias.
    pub shape: &'static [usize],
    /// Inputs that feed one output of the layer; it sets the range of the initial values.
    pub fan_in: usize,
}

impl ParameterSpec {
    /// The number of values.
    pub fn element_count(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The parameters in PyTorch's order, which is the order of everything here: initial values, files and optimizer state.
pub const PARAMETERS: [ParameterSpec; 10] = [
    spec("conv1.weight", &[6, 1, 5, 5], 25),
    spec("conv1.bias", &[6], 25),
    spec("conv2.weight", &[16, 6, 5, 5], 150),
    spec("conv2.bias", &[16], 150),
    spec("conv3.weight", &[120, 16, 5, 5], 400),
    spec("conv3.bias", &[120], 400),
    spec("fc1.weight", &[84, 120], 120),
    spec("fc1.bias", &[84], 120),
    spec("fc2.weight", &[10, 84], 84),
    spec("fc2.bias", &[10], 84),
];

/// The number of trained values in the whole model.
pub const PARAMETER_COUNT: usize = 61_706;

const fn spec(name: &'static str, shape: &'static [usize], fan_in: usize) -> ParameterSpec {
    ParameterSpec {
        name,
        shape,
        fan_in,
    }
}

/// LeNet-5: ten [`Var`]s and the way its forward pass is computed.
///
/// Cloning is cheap and shares the parameters.
#[derive(Debug, Clone)]
pub struct LeNet5 {
    parameters: Vec<(&'static str, Var)>,
    forward: Forward,
}

impl LeNet5 {
    /// A model with the initial values of `seed` (see [`initial_values`]), in any float dtype.
    ///
    /// Models of one seed agree across dtypes up to the rounding of each value to its dtype.
    ///
    /// # Errors
    /// When the dtype is not a float, or the device fails to allocate.
    pub fn new(seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        let values = initial_values(seed);
        let tensors = PARAMETERS
            .iter()
            .zip(values)
            .map(|(spec, values)| Tensor::from_vec(values, spec.shape, &Device::Cpu))
            .collect::<Result<Vec<_>>>()?;
        Self::from_ordered(tensors, dtype, device)
    }

    /// A model from ten tensors in the order of [`PARAMETERS`], whose shapes the caller has checked.
    pub(crate) fn from_ordered(
        tensors: Vec<Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        if !dtype.is_float() {
            return Err(candle_core::Error::Msg(format!(
                "LeNet5: dtype must be a float (f32, f64, f16 or bf16), got {dtype:?}"
            )));
        }
        let parameters = PARAMETERS
            .iter()
            .zip(tensors)
            .map(|(spec, tensor)| {
                let tensor = tensor.to_device(device)?.to_dtype(dtype)?;
                // The copy makes sure that training never writes into a tensor of the caller's.
                Ok((spec.name, Var::from_tensor(&tensor.copy()?)?))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            parameters,
            forward: Forward::default(),
        })
    }

    /// The same parameters with another way to compute the forward pass.
    pub fn with_forward(mut self, forward: Forward) -> Self {
        self.forward = forward;
        self
    }

    /// How the forward pass is computed.
    pub fn forward_mode(&self) -> Forward {
        self.forward
    }

    /// Names and parameters in the order of [`PARAMETERS`].
    pub fn parameters(&self) -> &[(&'static str, Var)] {
        &self.parameters
    }

    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&Var> {
        self.parameters
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, var)| var)
    }

    /// The dtype of the parameters, which images must have too.
    pub fn dtype(&self) -> DType {
        self.parameters[0].1.dtype()
    }

    /// The device of the parameters.
    pub fn device(&self) -> &Device {
        self.parameters[0].1.device()
    }

    /// Logits (N, 10) of images (N, 1, 32, 32), recorded for autograd.
    ///
    /// # Errors
    /// When the images have another shape or dtype than the model takes; the message says which.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let parameters: Vec<&Tensor> = self
            .parameters
            .iter()
            .map(|(_, var)| var.as_tensor())
            .collect();
        forward::forward(self.forward, images, &parameters)
    }

    /// The logits that `images` would have under other `parameters`, given in the order of [`PARAMETERS`]: tensors that
    /// need not be the model's own, nor leaves, so that the model is a function that can be differentiated in them.
    ///
    /// # Errors
    /// When there are not ten parameters of the right shapes; else as [`LeNet5::forward`].
    pub fn forward_with(&self, images: &Tensor, parameters: &[Tensor]) -> Result<Tensor> {
        let shapes: Vec<&[usize]> = parameters.iter().map(Tensor::dims).collect();
        if !shapes.iter().eq(PARAMETERS.iter().map(|spec| &spec.shape)) {
            return Err(candle_core::Error::Msg(format!(
                "LeNet5: parameters must be the ten of PARAMETERS, in their order and shapes; got shapes {shapes:?}"
            )));
        }
        forward::forward(self.forward, images, &parameters.iter().collect::<Vec<_>>())
    }

    /// The same logits without a graph: nothing that backward would need is kept, which saves memory in evaluation.
    ///
    /// # Errors
    /// As [`LeNet5::forward`].
    pub fn infer(&self, images: &Tensor) -> Result<Tensor> {
        let detached: Vec<Tensor> = self
            .parameters
            .iter()
            .map(|(_, var)| var.as_detached_tensor())
            .collect();
        forward::forward(
            self.forward,
            &images.detach(),
            &detached.iter().collect::<Vec<_>>(),
        )
    }
}
