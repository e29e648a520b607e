//! The picture's colours, for light and for dark. Told apart by people who see few colours too: phases differ in
//! lightness, and are written out where there is room.

/// Plain rules instead of variables, which not every program that shows pictures knows.
pub(super) const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 17px; font-weight: 600; }
.verdict { font-size: 13px; }
.name, .tick { text-anchor: end; font-variant-numeric: tabular-nums; }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.tick, .unit, .key { fill: #57606a; }
.label { font-size: 11px; font-weight: 600; }
.inside { font-size: 11px; fill: #ffffff; }
.paper { fill: #ffffff; }
.grid { stroke: #d0d7de; stroke-width: 0.6; }
.edge { stroke: #9a6700; stroke-width: 1.2; stroke-dasharray: 3 2; }
.fault { fill: #d4a72c; fill-opacity: 0.2; }
.up { fill: #a6d8c8; }
.frozen { fill: #2f6fd0; }
.cut { fill: #8a4fc4; }
.draining { fill: #8a6a10; }
.down { fill: #3b4149; }
.ok { fill: #1b8a6b; }
.failed { fill: #d1342b; }
.band { fill: #2f6fd0; fill-opacity: 0.45; }
.median { fill: none; stroke: #17479e; stroke-width: 1.3; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.tick, .unit, .key { fill: #9aa4af; }
.inside { fill: #0d1117; }
.paper { fill: #0d1117; }
.grid { stroke: #30363d; }
.edge { stroke: #e3b341; }
.fault { fill: #e3b341; fill-opacity: 0.16; }
.up { fill: #1d4a3d; }
.frozen { fill: #6ea8ff; }
.cut { fill: #c79bf2; }
.draining { fill: #d9b44a; }
.down { fill: #aeb7c0; }
.ok { fill: #35b38e; }
.failed { fill: #ff6b61; }
.band { fill: #6ea8ff; fill-opacity: 0.45; }
.median { stroke: #b6d3ff; }
}
";
