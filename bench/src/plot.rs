//! Curves as SVG: one file a chart, both axes logarithmic.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::prelude::*;
use serde::Serialize;

/// Named curves over one variable.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Chart {
    /// Name of the file, without extension.
    name: String,
    title: String,
    /// What grows.
    variable: String,
    /// Points by curve, in nanoseconds per packet.
    curves: BTreeMap<String, Vec<(f64, f64)>>,
}

impl Chart {
    pub(crate) fn new(name: &str, title: &str, variable: &str) -> Self {
        Self { name: name.into(), title: title.into(), variable: variable.into(), curves: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, curve: &str, at: f64, nanoseconds: f64) {
        self.curves.entry(curve.to_owned()).or_default().push((at, nanoseconds));
    }

    /// Draws the chart into `DIR/NAME.svg`.
    pub(crate) fn draw(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).with_context(|| format!("{} could not be made", dir.display()))?;
        let file = dir.join(format!("{}.svg", self.name));
        self.draw_to(&file).map_err(|e| anyhow::anyhow!("{} could not be drawn: {e}", file.display()))
    }

    fn draw_to(&self, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::new(file, (960, 600)).into_drawing_area();
        root.fill(&WHITE)?;
        let points = || self.curves.values().flatten();
        let span = |of: fn(&(f64, f64)) -> f64| {
            let (low, high) =
                points().map(of).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
            low * 0.8..high * 1.25
        };
        let mut chart = ChartBuilder::on(&root)
            .caption(&self.title, ("sans-serif", 22))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(span(|p| p.0).log_scale(), span(|p| p.1).log_scale())?;
        chart
            .configure_mesh()
            .x_desc(&self.variable)
            .y_desc("ns per packet, whole path, best round")
            .x_label_formatter(&|v| format!("{v:.0}"))
            .y_label_formatter(&|v| format!("{v:.0}"))
            .draw()?;
        for (number, (name, points)) in self.curves.iter().enumerate() {
            let color = Palette99::pick(number).mix(0.9);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.4))
            .draw()?;
        root.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_names_every_curve() {
        let mut chart = Chart::new("curves", "Cost", "flows");
        for (curve, at, cost) in [("ours", 1.0, 400.0), ("ours", 4096.0, 600.0), ("rival", 1.0, 1700.0)] {
            chart.add(curve, at, cost);
        }
        let dir = std::env::temp_dir().join(format!("sluicegate-plot-{}", std::process::id()));
        chart.draw(&dir).unwrap();
        let svg = std::fs::read_to_string(dir.join("curves.svg")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(
            svg.contains("ours")
                && svg.contains("rival")
                && svg.contains("flows")
                && svg.contains("polyline")
        );
    }
}
