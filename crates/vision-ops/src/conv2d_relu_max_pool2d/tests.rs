//! Claims about the fused op, against the composed form, the separate ops and central differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_simd::{Isa, with_isa};

use super::cpu_kernel::column_lanes::ColumnLanes;
use super::cpu_kernel::{column_gradient, halving, sparse_backward};
use super::fused::Known;
use super::{Geometry, Plan, composed, conv2d_relu_max_pool2d, plan};
use crate::conv2d::{Conv2dOptions, conv2d};
use crate::layer_op::Wanted;
use crate::max_pool2d::max_pool2d;
use crate::relu::relu;
use crate::test_support::{
    assert_gradients, awkward_layout, gradients, max_difference, numbers, random, values,
};

struct Case {
    x: [usize; 4],
    weight: [usize; 4],
    options: Conv2dOptions,
    pool: ((usize, usize), (usize, usize)),
}

/// Every plan, with non-square shapes, rows and columns that pooling drops, odd channel counts and one image or more.
fn cases() -> Vec<Case> {
    let plain = Conv2dOptions::default();
    let halves = ((2, 2), (2, 2));
    let case = |x, weight, options, pool| Case {
        x,
        weight,
        options,
        pool,
    };
    vec![
        case([2, 1, 9, 12], [3, 1, 3, 2], plain, halves),
        case([3, 1, 12, 20], [6, 1, 5, 5], plain, halves),
        case([1, 1, 7, 41], [7, 1, 2, 4], plain, halves),
        case(
            [2, 2, 6, 36],
            [2, 2, 3, 3],
            Conv2dOptions {
                padding: (2, 1),
                ..plain
            },
            halves,
        ),
        case([2, 6, 14, 14], [16, 6, 5, 5], plain, halves),
        case([1, 3, 6, 9], [17, 3, 1, 2], plain, halves),
        case(
            [2, 2, 5, 17],
            [8, 2, 3, 3],
            Conv2dOptions {
                padding: (1, 2),
                ..plain
            },
            halves,
        ),
        case([3, 1, 4, 5], [32, 1, 3, 3], plain, halves),
        // More kernel rows and longer runs than the registers of the sparse backward pass hold at once, in each remainder.
        case([1, 7, 11, 12], [17, 7, 6, 5], plain, halves),
        case([1, 3, 13, 9], [16, 3, 7, 6], plain, halves),
        case([2, 1, 11, 8], [16, 1, 8, 3], plain, halves),
        case([1, 5, 12, 7], [32, 5, 9, 1], plain, halves),
        case(
            [1, 1, 5, 6],
            [16, 1, 4, 3],
            Conv2dOptions {
                padding: (1, 0),
                ..plain
            },
            halves,
        ),
        case([2, 2, 9, 8], [3, 2, 3, 2], plain, ((3, 2), (2, 1))),
        case(
            [1, 4, 9, 11],
            [6, 2, 2, 3],
            Conv2dOptions { groups: 2, ..plain },
            halves,
        ),
        case(
            [2, 2, 11, 12],
            [4, 2, 3, 2],
            Conv2dOptions {
                stride: (2, 1),
                dilation: (1, 3),
                ..plain
            },
            halves,
        ),
        case([1, 1, 18, 19], [2, 1, 2, 2], plain, ((17, 17), (1, 1))),
    ]
}

fn arguments(case: &Case, dtype: DType) -> Result<Vec<Tensor>> {
    Ok(vec![
        random(1, &case.x, dtype)?,
        random(2, &case.weight, dtype)?,
        random(3, &case.weight[..1], dtype)?,
    ])
}

fn fused(case: &Case, t: &[Tensor]) -> Result<Tensor> {
    conv2d_relu_max_pool2d(&t[0], &t[1], &t[2], case.options, case.pool.0, case.pool.1)
}

fn separate(case: &Case, t: &[Tensor]) -> Result<Tensor> {
    let map = relu(&conv2d(&t[0], &t[1], Some(&t[2]), case.options)?)?;
    max_pool2d(&map, case.pool.0, case.pool.1)
}

#[test]
fn gradients_of_every_argument_agree_with_central_differences() -> Result<()> {
    for case in cases() {
        let t = arguments(&case, DType::F64)?;
        if t[0].elem_count() + t[1].elem_count() > 1500 {
            continue;
        }
        assert_gradients(|t| fused(&case, t), &t, 1e-7)?;
    }
    Ok(())
}

#[test]
fn every_instruction_set_agrees_with_the_composed_form_in_every_layout() -> Result<()> {
    for case in cases() {
        let t = arguments(&case, DType::F64)?;
        let (y, grads) = gradients(
            |t| {
                let ((kernel, stride), options) = (case.pool, case.options);
                composed::conv2d_relu_max_pool2d(&t[0], &t[1], &t[2], options, kernel, stride)
            },
            &t,
            9,
        )?;
        let strided = vec![awkward_layout(&t[0])?, awkward_layout(&t[1])?, t[2].clone()];
        for t in [t, strided] {
            for isa in Isa::available() {
                let (y2, grads2) = with_isa(isa, || gradients(|t| fused(&case, t), &t, 9))?;
                assert!(
                    max_difference(&y, &y2)? < 1e-10,
                    "{isa:?} {:?} {:?}",
                    case.x,
                    case.weight
                );
                for (grad, grad2) in grads.iter().zip(&grads2) {
                    let difference = max_difference(grad, grad2)?;
                    assert!(
                        difference < 1e-10,
                        "{isa:?} {:?} {:?}: {difference}",
                        case.x,
                        case.weight
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn f32_picks_the_winners_that_the_separate_ops_pick() -> Result<()> {
    for case in cases() {
        // Few distinct values, so that many windows have equal maxima and many results are 0.
        let t = arguments(&case, DType::F32)?;
        let tied: Vec<Tensor> = t.iter().map(|t| t.round()).collect::<Result<_>>()?;
        for t in [t, tied] {
            for isa in Isa::available() {
                let (y, grads) = with_isa(isa, || gradients(|t| fused(&case, t), &t, 9))?;
                let (y2, grads2) = with_isa(isa, || gradients(|t| separate(&case, t), &t, 9))?;
                assert_eq!(
                    max_difference(&y, &y2)?,
                    0.0,
                    "{isa:?} {:?} {:?}",
                    case.x,
                    case.weight
                );
                for (grad, grad2) in grads.iter().zip(&grads2) {
                    let difference = max_difference(grad, grad2)?;
                    assert!(
                        difference < 1e-4,
                        "{isa:?} {:?} {:?}: {difference}",
                        case.x,
                        case.weight
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_flat_image_gives_its_whole_gradient_to_the_first_position_of_a_window() -> Result<()> {
    let halves = ((2, 2), (2, 2));
    for (x, weight) in [([1, 1, 6, 36], [1, 1, 1, 1]), ([1, 1, 6, 6], [16, 1, 1, 1])] {
        let case = Case {
            x,
            weight,
            options: Conv2dOptions::default(),
            pool: halves,
        };
        let x = Var::from_tensor(&Tensor::ones(&x, DType::F32, &Device::Cpu)?)?;
        let weight = Tensor::ones(&weight, DType::F32, &Device::Cpu)?;
        let bias = Tensor::zeros(weight.dim(0)?, DType::F32, &Device::Cpu)?;
        let grads = fused(&case, &[x.as_tensor().clone(), weight, bias])?.backward()?;
        let width = x.dim(3)?;
        for (index, &grad) in values(grads.get(&x).unwrap())?.iter().enumerate() {
            let first = index / width % 2 == 0 && index % width % 2 == 0;
            assert_eq!(grad, if first { case.weight[0] as f64 } else { 0.0 });
        }
    }
    Ok(())
}

#[test]
fn nan_passes_through_values_and_gradients_as_in_the_separate_ops() -> Result<()> {
    for case in cases() {
        let t = arguments(&case, DType::F32)?;
        let count = t[0].elem_count();
        let mut x: Vec<f32> = t[0].flatten_all()?.to_vec1()?;
        x[count / 2] = f32::NAN;
        x[count / 3] = f32::INFINITY;
        let t = vec![
            Tensor::from_vec(x, &case.x, &Device::Cpu)?,
            t[1].clone(),
            t[2].clone(),
        ];
        for isa in Isa::available() {
            let y = with_isa(isa, || fused(&case, &t))?;
            let y2 = with_isa(isa, || separate(&case, &t))?;
            assert_eq!(
                max_difference(&y, &y2)?,
                0.0,
                "{isa:?} {:?} {:?}",
                case.x,
                case.weight
            );
        }
    }
    Ok(())
}

#[test]
fn an_infinite_upstream_gradient_reaches_the_pixels_of_one_patch_alone() -> Result<()> {
    for case in cases() {
        let t = arguments(&case, DType::F32)?;
        let x = Var::from_tensor(&t[0])?;
        // Positive everywhere, so that the gradient passes.
        let bias = (t[2].zeros_like()? + 100.0)?;
        let t = [x.as_tensor().clone(), t[1].clone(), bias];
        for isa in Isa::available() {
            with_isa(isa, || -> Result<()> {
                let y = fused(&case, &t)?;
                let mut upstream = vec![0f32; y.elem_count()];
                upstream[y.elem_count() / 2] = f32::INFINITY;
                let upstream = Tensor::from_vec(upstream, y.dims(), &Device::Cpu)?;
                let grads = (y * upstream)?.sum_all()?.backward()?;
                let grad = values(grads.get(&x).unwrap())?;
                let reached = grad.iter().filter(|x| !x.is_finite()).count();
                let patch: usize = case.weight[1..].iter().product();
                assert!(
                    (1..=patch).contains(&reached),
                    "{isa:?} {:?} {:?}: {reached}",
                    case.x,
                    case.weight
                );
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn an_infinite_image_leaves_nothing_behind_for_the_weight_gradient_of_the_next() -> Result<()> {
    // Images of this shape go through one buffer, up to nine at a time.
    for batch in [2, 9, 10, 11] {
        let [x_len, y_len] = [12 * 20, 6 * 4 * 8];
        let number = |i: usize| ((i * 37 + 11) % 101) as f32 / 101.0;
        let last: Vec<f32> = (0..x_len).map(number).collect();
        let mut x = vec![f32::INFINITY; (batch - 1) * x_len];
        x.extend(&last);
        let mut upstream = vec![0f32; (batch - 1) * y_len];
        upstream.extend(vec![1f32; y_len]);
        let weight: Vec<f32> = (0..6 * 25).map(number).collect();
        let gradient = |batch: usize, x: Vec<f32>, upstream: Vec<f32>| -> Result<Vec<f64>> {
            let device = &Device::Cpu;
            let x = Tensor::from_vec(x, (batch, 1, 12, 20), device)?;
            let weight = Var::from_vec(weight.clone(), (6, 1, 5, 5), device)?;
            let bias = Tensor::zeros(6, DType::F32, device)?;
            let options = Conv2dOptions::default();
            let y = conv2d_relu_max_pool2d(&x, &weight, &bias, options, (2, 2), (2, 2))?;
            let upstream = Tensor::from_vec(upstream, y.dims(), device)?;
            let grads = (y * upstream)?.sum_all()?.backward()?;
            values(grads.get(&weight).unwrap())
        };
        for isa in Isa::available() {
            let (all, alone) = with_isa(isa, || -> Result<_> {
                Ok((
                    gradient(batch, x.clone(), upstream.clone())?,
                    gradient(1, last.clone(), vec![1.0; y_len])?,
                ))
            })?;
            assert_eq!(all, alone, "{isa:?}, {batch} images");
        }
    }
    Ok(())
}

#[test]
fn the_sparse_weight_gradient_sees_no_pixel_that_the_upstream_gradient_passes_by() -> Result<()> {
    for case in cases() {
        let t = arguments(&case, DType::F32)?;
        let mut x: Vec<f32> = t[0].flatten_all()?.to_vec1()?;
        for image in x.chunks_exact_mut(case.x[1..].iter().product()) {
            image[0] = f32::INFINITY;
        }
        let x = Tensor::from_vec(x, &case.x, &Device::Cpu)?;
        let weight = Var::from_tensor(&t[1])?;
        let bias = (t[2].zeros_like()? + 100.0)?;
        let t = [x, weight.as_tensor().clone(), bias];
        for isa in Isa::available() {
            with_isa(isa, || -> Result<()> {
                let (kernel, stride) = case.pool;
                let plan = plan(&t[0], &t[1], &t[2], case.options, kernel, stride)?;
                if !matches!(plan, Plan::ColumnLanes | Plan::ChannelLanes) {
                    return Ok(());
                }
                let y = fused(&case, &t)?;
                let (height, width) = (y.dim(2)?, y.dim(3)?);
                let (rows, columns) = case.options.padding;
                let upstream: Vec<f32> = (0..y.elem_count())
                    .map(|index| (index / width % height, index % width))
                    .map(|(i, j)| (2 * i > rows || 2 * j > columns) as u8 as f32)
                    .collect();
                let upstream = Tensor::from_vec(upstream, y.dims(), &Device::Cpu)?;
                // The gradient of a product with `y`, without its infinite elements.
                let zeros = y.zeros_like()?;
                let passed = upstream.gt(&zeros)?.where_cond(&y, &zeros)?;
                let grads = (passed * upstream)?.sum_all()?.backward()?;
                let grad = values(grads.get(&weight).unwrap())?;
                assert!(
                    grad.iter().all(|x| x.is_finite()),
                    "{isa:?} {:?} {:?}",
                    case.x,
                    case.weight
                );
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// The one along the columns is chosen with AVX-512 alone.
#[test]
fn both_backward_passes_of_the_column_lanes_agree_on_every_instruction_set() -> Result<()> {
    for isa in Isa::available() {
        let mut tried = 0;
        for case in cases() {
            let mut t = arguments(&case, DType::F64)?;
            t[0] = Tensor::cat(&[&t[0]; 5], 0)?;
            let (kernel, stride) = case.pool;
            let with = || plan(&t[0], &t[1], &t[2], case.options, kernel, stride);
            if with_isa(isa, with)? != Plan::ColumnLanes {
                continue;
            }
            tried += 1;
            let geometry = Geometry::new(&t[0], &t[1], &t[2], case.options, kernel, stride)?;
            let [mut x, weight, bias] = [values(&t[0])?, values(&t[1])?, values(&t[2])?];
            for finite in [true, false] {
                if !finite {
                    // In the second image, all of whose gradients are 0 below.
                    x[geometry.conv.input_len()] = f64::INFINITY;
                }
                let columns = ColumnLanes::new(isa, &geometry, &weight, &bias);
                let (y, winners) = halving::forward(isa, &geometry, &x, &columns);
                let mut upstream = numbers(8, y.len());
                let image = geometry.conv.out_channels * geometry.pooled();
                upstream[image..2 * image].fill(0.0);
                let known = Known {
                    winners: &winners,
                    x: &x,
                    weight: &weight,
                    y: &y,
                    upstream: &upstream,
                };
                let wanted = Wanted {
                    x: false,
                    weight: true,
                    bias: true,
                };
                let a = column_gradient::backward(isa, &geometry, known);
                let b = sparse_backward::backward(isa, &geometry, wanted, known);
                let pairs = a
                    .weight
                    .iter()
                    .zip(&b.weight)
                    .chain(a.bias.iter().zip(&b.bias));
                for (a, b) in pairs {
                    let same = (a - b).abs() < 1e-12;
                    assert!(same, "{isa:?} {:?} finite: {finite}: {a} and {b}", case.x);
                }
            }
        }
        assert!(tried > 2, "{isa:?}: {tried} shapes");
    }
    Ok(())
}

#[test]
fn only_tracked_arguments_get_a_gradient() -> Result<()> {
    for case in cases() {
        let t = arguments(&case, DType::F32)?;
        let (_, all) = gradients(|t| fused(&case, t), &t, 5)?;
        for tracked in 0..3 {
            let mut t = t.clone();
            let var = Var::from_tensor(&t[tracked])?;
            t[tracked] = var.as_tensor().clone();
            let y = fused(&case, &t)?;
            let upstream = random(5, y.dims(), DType::F32)?;
            let grads = (y * upstream)?.sum_all()?.backward()?;
            for (index, t) in t.iter().enumerate() {
                assert_eq!(grads.get(t).is_some(), index == tracked);
            }
            assert!(max_difference(grads.get(&var).unwrap(), &all[tracked])? < 1e-4);
        }
    }
    Ok(())
}

#[test]
fn an_empty_batch_has_zero_weight_gradients() -> Result<()> {
    for mut case in cases() {
        case.x[0] = 0;
        let t = arguments(&case, DType::F32)?;
        let (y, grads) = gradients(|t| fused(&case, t), &t, 5)?;
        assert_eq!(y.dim(0)?, 0);
        assert_eq!(grads[0].dims(), case.x);
        assert!(
            values(&grads[1])?
                .iter()
                .chain(&values(&grads[2])?)
                .all(|&g| g == 0.0)
        );
    }
    Ok(())
}

#[test]
fn one_thread_and_two_give_the_same_bits() -> Result<()> {
    for mut case in cases() {
        case.x[0] = 45;
        let t = arguments(&case, DType::F32)?;
        let run = |threads| -> Result<(Tensor, Vec<Tensor>)> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let pool = pool.map_err(candle_core::Error::wrap)?;
            pool.install(|| gradients(|t| fused(&case, t), &t, 4))
        };
        let ((y, grads), (y2, grads2)) = (run(1)?, run(2)?);
        assert_eq!(max_difference(&y, &y2)?, 0.0);
        for (grad, grad2) in grads.iter().zip(&grads2) {
            assert_eq!(max_difference(grad, grad2)?, 0.0);
        }
    }
    Ok(())
}

#[test]
fn repeated_backward_gives_the_same_bits() -> Result<()> {
    for case in cases() {
        let vars: Vec<Var> = arguments(&case, DType::F32)?
            .iter()
            .map(Var::from_tensor)
            .collect::<Result<_>>()?;
        let t: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let y = fused(&case, &t)?;
        let (grads, grads2) = (y.backward()?, y.backward()?);
        for t in &t {
            assert_eq!(
                max_difference(grads.get(t).unwrap(), grads2.get(t).unwrap())?,
                0.0
            );
        }
    }
    Ok(())
}

#[test]
fn errors_name_this_op() -> Result<()> {
    let t = arguments(&cases()[0], DType::F32)?;
    let message = |pool_kernel, bias: &Tensor| {
        conv2d_relu_max_pool2d(
            &t[0],
            &t[1],
            bias,
            Conv2dOptions::default(),
            pool_kernel,
            (2, 2),
        )
        .unwrap_err()
        .to_string()
    };
    let cases = [
        (
            message((8, 2), &t[2]),
            "conv2d_relu_max_pool2d: `kernel` must be no larger than the 7 x 11 image that is pooled, got (8, 2)",
        ),
        (
            message((2, 2), &t[1]),
            "conv2d_relu_max_pool2d: `bias` must have shape (3), got [3, 1, 3, 2]",
        ),
    ];
    for (got, expected) in cases {
        assert!(got.contains(expected), "{got}");
    }
    Ok(())
}

#[test]
fn the_plan_says_what_serves_a_shape() -> Result<()> {
    let halves = ((2, 2), (2, 2));
    let plain = Conv2dOptions::default();
    let grouped = Conv2dOptions { groups: 2, ..plain };
    let padded = Conv2dOptions {
        padding: (1, 1),
        ..plain
    };
    let shapes = [
        (
            [2, 1, 32, 32],
            [6, 1, 5, 5],
            plain,
            halves,
            Plan::ColumnLanes,
        ),
        (
            [2, 6, 14, 14],
            [16, 6, 5, 5],
            plain,
            halves,
            Plan::ChannelLanes,
        ),
        (
            [2, 3, 32, 32],
            [16, 3, 3, 3],
            padded,
            halves,
            Plan::ChannelLanes,
        ),
        ([2, 1, 8, 8], [3, 1, 3, 3], plain, halves, Plan::General),
        (
            [2, 64, 64, 64],
            [64, 64, 3, 3],
            plain,
            halves,
            Plan::General,
        ),
        (
            [2, 2, 32, 32],
            [32, 1, 5, 5],
            grouped,
            halves,
            Plan::General,
        ),
        (
            [2, 1, 32, 32],
            [32, 1, 5, 5],
            plain,
            ((3, 3), (2, 2)),
            Plan::General,
        ),
        (
            [2, 1, 32, 32],
            [32, 1, 5, 5],
            plain,
            ((17, 17), (1, 1)),
            Plan::Separate,
        ),
    ];
    for (x, weight, options, pool, expected) in shapes {
        let case = Case {
            x,
            weight,
            options,
            pool,
        };
        let t = arguments(&case, DType::F32)?;
        for isa in Isa::available() {
            let plan = || plan(&t[0], &t[1], &t[2], options, pool.0, pool.1);
            assert_eq!(with_isa(isa, plan)?, expected, "{isa:?} {x:?} {weight:?}");
        }
    }
    Ok(())
}
