//! The worked example of the documentation, with PyTorch's numbers.

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::CrossEntropy;

const LOGITS: [[f64; 5]; 3] = [
    [1.1785, -0.0969, 0.5756, -1.2113, -0.112],
    [-0.5199, -0.8051, 1.0953, 0.148, 0.2879],
    [2.3401, 0.6403, 1.4306, 0.0982, -0.7363],
];
const LOSS: f64 = 2.018_656_510_248_812_5;
/// For the upstream gradient 0.5.
const GRADIENT: [f64; 15] = [
    0.07598820688014185,
    0.02122496653708806,
    0.04158244801914422,
    0.0069641680691855945,
    -0.1457597895055597,
    0.015187601968629096,
    0.011419009139114963,
    0.07637683436395835,
    -0.13704875106461528,
    0.03406530559291287,
    0.09590520999995775,
    -0.14914286051807985,
    0.03862347714745954,
    0.010190544778106908,
    0.00442362859255566,
];

type Form = fn(&CrossEntropy, &Tensor, &Tensor) -> Result<Tensor>;

#[test]
fn both_forms_give_pytorchs_loss_and_gradient_for_every_dtype() -> Result<()> {
    let forms: [Form; 2] = [CrossEntropy::forward, CrossEntropy::composed];
    for form in forms {
        for (dtype, tolerance) in [
            (DType::F64, 1e-14),
            (DType::F32, 1e-6),
            (DType::F16, 2e-3),
            (DType::BF16, 1e-2),
        ] {
            for targets in [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64] {
                let logits =
                    Var::from_tensor(&Tensor::new(&LOGITS, &Device::Cpu)?.to_dtype(dtype)?)?;
                let targets = Tensor::new(&[4i64, 3, 1], &Device::Cpu)?.to_dtype(targets)?;
                let loss = form(&CrossEntropy::new(), &logits, &targets)?;
                let expected = if dtype == DType::F64 {
                    DType::F64
                } else {
                    DType::F32
                };
                assert_eq!(loss.dtype(), expected);
                assert!((loss.to_dtype(DType::F64)?.to_scalar::<f64>()? - LOSS).abs() < tolerance);
                let gradients = (loss * 0.5)?.backward()?;
                let gradient = gradients.get(&logits).unwrap();
                assert_eq!(gradient.dtype(), dtype);
                let gradient = gradient
                    .to_dtype(DType::F64)?
                    .flatten_all()?
                    .to_vec1::<f64>()?;
                for (got, expected) in gradient.iter().zip(GRADIENT) {
                    assert!(
                        (got - expected).abs() < tolerance,
                        "{dtype:?}: {got} for {expected}"
                    );
                }
            }
        }
    }
    Ok(())
}
