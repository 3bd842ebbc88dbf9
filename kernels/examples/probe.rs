use burn::backend::Flex;
use burn::tensor::{Device, Distribution, Tensor};
use polestar_kernels::{Kernels, Spans};
use std::time::Instant;
fn main() {
    let device = Device::flex();
    for (t, h) in [(256usize, 1usize), (512, 1), (1024, 1)] {
        let r = || {
            Tensor::<3>::random([t, h, 64], Distribution::Normal(0., 1.), &device)
                .try_into_primitive::<Flex>()
                .unwrap()
        };
        let (q, k, v, g) = (r(), r(), r(), r());
        let spans = Spans::sequences([t as u32]).unwrap();
        let best = |f: &dyn Fn()| {
            let mut b = f64::MAX;
            for _ in 0..300 {
                let s = Instant::now();
                f();
                b = b.min(s.elapsed().as_secs_f64());
            }
            b
        };
        let f = best(&|| {
            std::hint::black_box(Flex::span_attention_forward(
                q.clone(),
                k.clone(),
                v.clone(),
                spans.clone(),
            ));
        });
        let (o, l) = Flex::span_attention_forward(q.clone(), k.clone(), v.clone(), spans.clone());
        let b = best(&|| {
            std::hint::black_box(Flex::span_attention_backward(
                q.clone(),
                k.clone(),
                v.clone(),
                o.clone(),
                l.clone(),
                g.clone(),
                spans.clone(),
            ));
        });
        let n = t / 64;
        let pairs = (n * (n + 1) / 2 * 64 * 64) as f64;
        println!(
            "T {t}: forward {:.3} ms {:.1} GFLOP/s, backward {:.3} ms {:.1} GFLOP/s",
            f * 1e3,
            pairs * 64. * 4. / f / 1e9,
            b * 1e3,
            pairs * 64. * 10. / b / 1e9
        );
    }
}
