//! Axes: where a value stands between 0 and 1, and which values are named.

use crate::report::figures::show_number;

#[derive(Debug, Clone)]
pub struct Axis {
    pub title: String,
    is_log: bool,
    from: f64,
    to: f64,
    pub ticks: Vec<(f64, String)>,
}

/// About as many ticks as fit.
const TICKS: f64 = 5.0;
/// Values further apart than this are shown by their logarithm.
const LOG_RATIO_MIN: f64 = 30.0;

impl Axis {
    /// From zero to a round number above all values.
    pub fn linear(title: &str, values: impl Iterator<Item = f64>) -> Self {
        let max = values.fold(0.0, f64::max);
        let max = if max > 0.0 { max } else { 1.0 };
        let step = round_step(max / TICKS);
        let count = (max / step).ceil() as u32;
        let ticks: Vec<_> = (0..=count).map(|tick| f64::from(tick) * step).collect();
        Self {
            title: title.to_owned(),
            is_log: false,
            from: 0.0,
            to: f64::from(count) * step,
            ticks: ticks.into_iter().map(|value| (value, short(value))).collect(),
        }
    }

    /// From zero to exactly `max`: for time.
    pub fn span(title: &str, max: f64) -> Self {
        let whole = Self::linear(title, std::iter::once(max));
        let ticks = whole.ticks.into_iter().filter(|(value, _)| *value <= max).collect();
        Self { to: max.max(1e-9), ticks, ..whole }
    }

    /// By powers of ten if the values are far apart, else linear.
    pub fn adaptive(title: &str, values: impl Iterator<Item = f64> + Clone) -> Self {
        let positive = values.clone().filter(|value| *value > 0.0);
        let (min, max) = positive.fold((f64::MAX, 0.0), |(min, max), value| (value.min(min), value.max(max)));
        if max < min * LOG_RATIO_MIN {
            return Self::linear(title, values);
        }
        let decade = |value: f64| value.log10().floor() as i32;
        let all: Vec<f64> = (decade(min)..=decade(max) + 1)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|part| part * 10.0_f64.powi(power)))
            .collect();
        let from = all.iter().copied().rfind(|tick| *tick <= min).unwrap_or(min);
        let to = all.iter().copied().find(|tick| *tick >= max).unwrap_or(max);
        // Over many decades, only the powers of ten are named.
        let every = if decade(max) - decade(min) > 2 { 3 } else { 1 };
        let named = all.into_iter().step_by(every).filter(|tick| (from..=to).contains(tick));
        let ticks = named.map(|value| (value, short(value))).collect();
        Self { title: title.to_owned(), is_log: true, from, to, ticks }
    }

    /// Shares of all, stretched towards 100 %: as far as `count` values can tell.
    pub fn quantiles(title: &str, count: u64) -> Self {
        let nines = (count.max(10) as f64).log10();
        let name = |place: i32| match place {
            0 => "0%".to_owned(),
            1 => "90%".to_owned(),
            2 => "99%".to_owned(),
            place => format!("99.{}%", "9".repeat(place as usize - 2)),
        };
        // The more nines, the longer the names.
        let named = (0..=nines.floor() as i32).filter(|place| *place <= 4 || place % 2 == 0);
        let ticks = named.map(|place| (f64::from(place), name(place))).collect();
        Self { title: title.to_owned(), is_log: false, from: 0.0, to: nines, ticks }
    }

    /// Where a quantile stands on [`Self::quantiles`], before scaling.
    pub fn quantile(&self, quantile: f64) -> f64 {
        (1.0 / (1.0 - quantile).max(1e-12)).log10().min(self.to)
    }

    /// From 0 to 1 inside the axis.
    pub fn position(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.is_log { value.max(self.from).log10() } else { value };
        ((scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from))).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10.0_f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|part| part * power)
        .find(|round| *round >= step * 0.999)
        .unwrap_or(step)
}

/// A number for a tick: `20k`, `1.5M`, `0.05`.
fn short(value: f64) -> String {
    let trimmed = |value: f64, unit: &str| {
        let text = format!("{value:.2}");
        format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 999_500.0 => trimmed(value / 1e6, "M"),
        size if size >= 1e3 => trimmed(value / 1e3, "k"),
        size if size < 0.01 => format!("{value:.0e}"),
        size if size < 100.0 => trimmed(value, ""),
        _ => show_number(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn linear_axes_begin_at_zero_and_end_at_a_round_number() {
        let axis = Axis::linear("", [3.0, 4720.0].into_iter());
        assert_eq!(names(&axis), ["0", "1k", "2k", "3k", "4k", "5k"]);
        assert_eq!((axis.position(0.0), axis.position(5000.0)), (0.0, 1.0));
        assert_eq!(names(&Axis::linear("", std::iter::empty())), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
    }

    #[test]
    fn values_far_apart_are_shown_by_their_logarithm() {
        let axis = Axis::adaptive("", [0.3, 40.0].into_iter());
        assert_eq!(names(&axis), ["0.2", "0.5", "1", "2", "5", "10", "20", "50"]);
        assert!((axis.position(10.0_f64.sqrt()) - 0.5).abs() < 1e-9);
        assert_eq!(names(&Axis::adaptive("", [1.0, 2.0].into_iter()))[0], "0");
    }

    #[test]
    fn over_many_decades_only_powers_of_ten_are_named() {
        let axis = Axis::adaptive("", [0.7, 3000.0].into_iter());
        assert_eq!(names(&axis), ["1", "10", "100", "1k"]);
    }

    #[test]
    fn quantiles_go_as_far_as_the_count_tells() {
        let axis = Axis::quantiles("", 20_000);
        assert_eq!(names(&axis), ["0%", "90%", "99%", "99.9%", "99.99%"]);
        assert!((axis.quantile(0.99) - 2.0).abs() < 1e-9);
        assert_eq!(axis.position(axis.quantile(1.0)), 1.0);
    }
}
