//! Arithmetic, moves, masks and reductions agree with scalar code, lane by lane.

use super::{map, unary};
use crate::{Float, Isa, Kernel, Simd, Vector};

/// Numbers of all kinds, an awkward count of them.
fn samples<T: Float>() -> Vec<T> {
    let mut data: Vec<T> = (-40..41)
        .map(|i| T::from_f64(f64::from(i) * 0.37))
        .collect();
    data.extend(
        [
            0.5,
            1.5,
            2.5,
            -0.5,
            -1.5,
            -2.5,
            0.0,
            -0.0,
            1e-30,
            1e30,
            8_388_607.5,
            8_388_609.0,
            -1e9,
        ]
        .map(T::from_f64),
    );
    data.extend([T::INFINITY, T::NEG_INFINITY]);
    data
}

unary!(Round, x => x.round());
unary!(Abs, x => x.abs());
unary!(Negate, x => -x);
unary!(Sqrt, x => x.abs().sqrt());
unary!(Scale, x => {
    let s = x.token();
    let n = V::splat(s, <V::Elem as Float>::from_f64(-7.0));
    x.scale2(n)
});
unary!(Merge, x => {
    let (m, e) = x.split2();
    m.scale2(e)
});

fn agrees<T: Float>(op: impl super::UnaryOp + Copy, scalar: impl Fn(f64) -> f64) {
    for isa in Isa::available() {
        for (x, y) in samples::<T>()
            .into_iter()
            .zip(map(isa, &samples::<T>(), op))
        {
            let expected = T::from_f64(scalar(x.to_f64()));
            assert!(
                expected == y,
                "{}: {x:?} gave {y:?}, expected {expected:?}",
                isa.name()
            );
        }
    }
}

macro_rules! copy {
    ($($op:ident)*) => { $(impl Clone for $op { fn clone(&self) -> Self { *self } } impl Copy for $op {})* };
}
copy!(Round Abs Negate Sqrt Scale Merge);

#[test]
fn unary_operations_agree_with_scalar_code() {
    agrees::<f32>(Round, f64::round_ties_even);
    agrees::<f64>(Round, f64::round_ties_even);
    agrees::<f32>(Abs, f64::abs);
    agrees::<f64>(Abs, f64::abs);
    agrees::<f32>(Negate, |x| -x);
    agrees::<f64>(Negate, |x| -x);
    agrees::<f32>(Sqrt, |x| f64::from((x.abs() as f32).sqrt()));
    agrees::<f64>(Sqrt, |x| x.abs().sqrt());
    agrees::<f32>(Scale, |x| x / 128.0);
    agrees::<f64>(Scale, |x| x / 128.0);
}

#[test]
fn split_and_scale_give_the_number_back() {
    for isa in Isa::available() {
        let data: Vec<f32> = (1..5000)
            .map(|i| (i as f32) * 0.123_f32.powi(i % 40))
            .filter(|x| x.is_normal())
            .collect();
        assert_eq!(map(isa, &data, Merge), data, "{}", isa.name());
        let data: Vec<f64> = (1..5000)
            .map(|i| f64::from(i) * 0.123_f64.powi(i % 300))
            .collect();
        assert_eq!(map(isa, &data, Merge), data, "{}", isa.name());
    }
}

/// Checks one type in one instruction set, with scalar code beside each operation.
struct Check<T>(std::marker::PhantomData<T>);

impl<T: Float> Kernel for Check<T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        type V<T, S> = <T as Float>::V<S>;
        let lanes = V::<T, S>::LANES;
        let name = S::ISA.name();
        let f = |x: f64| T::from_f64(x);
        let a: Vec<T> = (0..lanes).map(|i| f(i as f64 * 1.25 - 3.0)).collect();
        let b: Vec<T> = (0..lanes).map(|i| f(5.0 - i as f64)).collect();
        let (va, vb) = (V::<T, S>::load(s, &a), V::<T, S>::load(s, &b));

        // The operands are small multiples of a power of two, so that every result but the quotient is exact.
        let binary = |what: &str, got: V<T, S>, scalar: &dyn Fn(f64, f64) -> f64| {
            for i in 0..lanes {
                let expected = f(scalar(a[i].to_f64(), b[i].to_f64()));
                assert_eq!(got.to_array()[i], expected, "{name}: {what}, lane {i}");
            }
        };
        binary("add", va + vb, &|a, b| a + b);
        binary("sub", va - vb, &|a, b| a - b);
        binary("mul", va * vb, &|a, b| a * b);
        binary("max", va.max(vb), &f64::max);
        binary("min", va.min(vb), &f64::min);
        binary("copysign", va.copysign(vb), &f64::copysign);
        binary("mul_add", va.mul_add(vb, va), &|a, b| a * b + a);
        binary("neg_mul_add", va.neg_mul_add(vb, va), &|a, b| a - a * b);
        binary("select lt", va.select(va.lt(vb), vb), &f64::min);
        binary("select le", va.select(va.le(vb), vb), &f64::min);
        binary("select gt", va.select(va.gt(vb), vb), &f64::max);
        binary("select ge", va.select(va.ge(vb), vb), &f64::max);
        binary(
            "div",
            (va * vb)
                / vb.select(
                    !vb.eq(V::<T, S>::splat(s, T::ZERO)),
                    V::<T, S>::splat(s, T::ONE),
                ),
            &|a, b| {
                if b == 0.0 { 0.0 } else { a }
            },
        );

        let bits = |mask| V::<T, S>::mask_bits(mask);
        let expected = |test: &dyn Fn(T, T) -> bool| {
            (0..lanes)
                .map(|i| u32::from(test(a[i], b[i])) << i)
                .sum::<u32>()
        };
        assert_eq!(bits(va.lt(vb)), expected(&|a, b| a < b), "{name}");
        assert_eq!(
            bits(va.le(vb) & va.ge(vb)),
            expected(&|a, b| a == b),
            "{name}"
        );
        assert_eq!(
            bits(va.lt(vb) | va.gt(vb)),
            expected(&|a, b| a != b),
            "{name}"
        );
        let nan = V::<T, S>::splat(s, T::NAN);
        let all = ((1u64 << lanes) - 1) as u32;
        assert_eq!(bits(nan.is_nan()), all, "{name}");
        assert_eq!(
            bits(va.is_nan() | nan.lt(va) | nan.ge(va) | nan.eq(nan)),
            0,
            "{name}"
        );
        assert_eq!(
            nan.max(va).to_array(),
            va.to_array(),
            "{name}: max returns its second operand for NaN"
        );
        assert_eq!(
            nan.min(va).to_array(),
            va.to_array(),
            "{name}: min returns its second operand for NaN"
        );
        assert_eq!(
            bits(va.max(nan).is_nan() & va.min(nan).is_nan()),
            all,
            "{name}"
        );

        let mut tree: Vec<T> = a.iter().map(|&x| x * f(0.1)).collect();
        let sum = (va * V::<T, S>::splat(s, f(0.1))).reduce_add();
        while tree.len() > 1 {
            let half = tree.len() / 2;
            tree = (0..half).map(|i| tree[i] + tree[i + half]).collect();
        }
        assert_eq!(sum, tree[0], "{name}: sums as the documented tree");
        for i in 0..lanes {
            let mut spike = vec![T::ZERO; lanes];
            spike[i] = T::ONE;
            assert_eq!(
                V::<T, S>::load(s, &spike).reduce_max(),
                T::ONE,
                "{name}, lane {i}"
            );
            spike[i] = -T::ONE;
            assert_eq!(
                V::<T, S>::load(s, &spike).reduce_min(),
                -T::ONE,
                "{name}, lane {i}"
            );
        }

        for n in 0..=lanes {
            assert_eq!(
                bits(V::<T, S>::first(s, n)),
                ((1u64 << n) - 1) as u32,
                "{name}"
            );
            let part = V::<T, S>::load_partial(s, &a[..n], T::NEG_INFINITY).to_array();
            assert_eq!(part[..n], a[..n], "{name}");
            assert!(
                part[n..lanes].iter().all(|&x| x == T::NEG_INFINITY),
                "{name}"
            );
            let mut out = vec![f(77.0); lanes + 1];
            va.store_partial(&mut out[..n]);
            assert_eq!(out[..n], a[..n], "{name}");
            assert!(
                out[n..].iter().all(|&x| x == f(77.0)),
                "{name}: writes past the part"
            );
        }
    }
}

#[test]
fn every_operation_agrees_with_scalar_code_on_every_instruction_set() {
    for isa in Isa::available() {
        isa.dispatch(Check::<f32>(std::marker::PhantomData));
        isa.dispatch(Check::<f64>(std::marker::PhantomData));
    }
}
