//! What a launch tells of itself: traces, metrics and logs to a collector, metrics to Prometheus, and a collector that
//! hangs.

use crate::common::{Running, Sandbox, json, small_sweep};
use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status};

/// How long a process may take at its end for a collector that hangs, as docs/telemetry.md says.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// A collector in this process.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    /// With the resource that it is of.
    spans: Vec<(Resource, Span)>,
    metrics: BTreeSet<String>,
    /// Text of each log, and the trace that it belongs to.
    logs: Vec<(String, Vec<u8>)>,
}

impl Collector {
    fn traces(&self, request: ExportTraceServiceRequest) {
        let mut received = self.0.lock().expect("no panics");
        for of in request.resource_spans {
            let resource = of.resource.unwrap_or_default();
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans);
            received
                .spans
                .extend(spans.map(|span| (resource.clone(), span)));
        }
    }

    fn metrics(&self, request: ExportMetricsServiceRequest) {
        let resources = request.resource_metrics.into_iter();
        let scopes = resources.flat_map(|of| of.scope_metrics);
        let names = scopes
            .flat_map(|scope| scope.metrics)
            .map(|metric| metric.name);
        self.0.lock().expect("no panics").metrics.extend(names);
    }

    fn logs(&self, request: ExportLogsServiceRequest) {
        let scopes = request
            .resource_logs
            .into_iter()
            .flat_map(|of| of.scope_logs);
        let logs = scopes.flat_map(|scope| scope.log_records).map(|log| {
            let body = log.body.and_then(|body| body.value);
            let text = match body {
                Some(Value::StringValue(text)) => text,
                other => format!("{other:?}"),
            };
            (text, log.trace_id)
        });
        self.0.lock().expect("no panics").logs.extend(logs);
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.traces(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.logs(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

fn grpc(runtime: &Runtime, collector: &Collector) -> SocketAddr {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .add_service(MetricsServiceServer::new(collector.clone()))
        .add_service(LogsServiceServer::new(collector.clone()))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    runtime.spawn(serving);
    address
}

fn http(runtime: &Runtime, collector: &Collector) -> SocketAddr {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    let traces = |State(to): State<Collector>, body: Bytes| async move {
        to.traces(Message::decode(body).expect("OTLP"));
    };
    let metrics = |State(to): State<Collector>, body: Bytes| async move {
        to.metrics(Message::decode(body).expect("OTLP"));
    };
    let logs = |State(to): State<Collector>, body: Bytes| async move {
        to.logs(Message::decode(body).expect("OTLP"));
    };
    let router = Router::new()
        .route("/v1/traces", post(traces))
        .route("/v1/metrics", post(metrics))
        .route("/v1/logs", post(logs))
        .with_state(collector.clone());
    runtime.spawn(async move { axum::serve(listener, router).await });
    address
}

/// Two workers that train one trial together.
fn two_workers(steps: u64, telemetry: &str) -> String {
    let sweep = small_sweep(steps).replace("workers = 1", "workers = 2\nworkers_per_trial = 2");
    format!("{sweep}\n[telemetry]\n{telemetry}\n")
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

/// Everything that a trial's two ranks and their coordinator told is one trace.
fn is_one_trace(received: &Received) {
    let named = |name: &str| -> Vec<&(Resource, Span)> {
        let spans = received.spans.iter();
        spans.filter(|(_, span)| span.name == name).collect()
    };
    let [(coordinator, trial)] = named("trial")[..] else {
        panic!("one span of the trial: {:?}", named("trial"));
    };
    assert_eq!(
        text(&coordinator.attributes, "polestar.role"),
        Some("coordinator")
    );
    assert!(
        text(&coordinator.attributes, "polestar.run").is_some_and(|run| run.starts_with("small-"))
    );
    assert_eq!(trial.parent_span_id, Vec::<u8>::new(), "a root");
    let [(_, generation)] = named("generation")[..] else {
        panic!("one generation: {:?}", named("generation"));
    };
    assert_eq!(generation.parent_span_id, trial.span_id);
    let ranks = named("rank");
    let who = |key: &str| -> BTreeSet<Option<&str>> {
        ranks
            .iter()
            .map(|(of, _)| text(&of.attributes, key))
            .collect()
    };
    assert_eq!(who("polestar.role"), BTreeSet::from([Some("worker")]));
    assert_eq!(who("service.instance.id").len(), 2, "two processes");
    let numbers: BTreeSet<_> = ranks
        .iter()
        .map(|(_, s)| number(&s.attributes, "polestar.rank"))
        .collect();
    assert_eq!(numbers, BTreeSet::from([Some(0), Some(1)]));
    for (_, rank) in &ranks {
        assert_eq!(rank.parent_span_id, generation.span_id);
        let within = |name: &str| {
            let spans = named(name).into_iter();
            spans
                .filter(|(_, span)| span.parent_span_id == rank.span_id)
                .count()
        };
        for name in ["connect", "resume", "step", "load"] {
            assert!(within(name) > 0, "{name}");
        }
    }
    for name in [
        "data",
        "gradient",
        "reduce",
        "optimizer",
        "evaluate",
        "save",
        "checkpoint.upload",
        "checkpoint.commit",
    ] {
        assert!(!named(name).is_empty(), "{name}");
    }
    for (_, span) in &received.spans {
        assert_eq!(span.trace_id, trial.trace_id, "{}", span.name);
    }
    assert!(
        received.metrics.contains("polestar.trial.loss"),
        "{:?}",
        received.metrics
    );
    assert!(received.metrics.contains("polestar.trial.step.time"));
}

#[test]
fn a_trial_over_two_workers_is_one_trace_over_http() {
    let runtime = Runtime::new().expect("a runtime");
    let collector = Collector::default();
    let address = http(&runtime, &collector);
    let sandbox = Sandbox::new();
    sandbox.write("sweep.toml", &two_workers(10, ""));
    let mut command = sandbox.command(&["launch", "sweep.toml"]);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let received = collector.0.lock().expect("no panics");
    is_one_trace(&received);
    let trace = &received.spans[0].1.trace_id;
    let done = received.logs.iter().find(|(text, _)| text == "done");
    assert_eq!(done.map(|(_, of)| of), Some(trace), "{:?}", received.logs);
}

/// What a server answers to a request for a path, with what credentials.
fn get(address: &str, path: &str, bearer: Option<&str>) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let bearer = bearer.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let bearer = bearer.unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{bearer}\r\n");
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

#[test]
fn a_launch_exports_over_grpc_and_answers_prometheus() {
    let runtime = Runtime::new().expect("a runtime");
    let collector = Collector::default();
    let address = grpc(&runtime, &collector);
    let sandbox = Sandbox::new();
    let open = "prometheus = \"0.0.0.0:0\"";
    sandbox.write("sweep.toml", &two_workers(10, open));
    let said = sandbox.refuse(&["launch", "sweep.toml", "--dry-run"]);
    assert!(said.contains("telemetry.token_file"), "{said}");

    sandbox.succeed(&["token", "secret"]);
    let telemetry = format!(
        "otlp = \"http://{address}\"\nprometheus = \"127.0.0.1:0\"\ntoken_file = \"secret\""
    );
    sandbox.write("sweep.toml", &two_workers(100_000, &telemetry));
    let mut command = sandbox.command(&["launch", "sweep.toml"]);
    let mut launch = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(launch.stdout.take().expect("it was piped")).lines();
    let line = lines.find_map(|line| {
        let line = line.expect("text");
        line.strip_prefix("metrics http://").map(str::to_owned)
    });
    let line = line.expect("it says where");
    let metrics = line.strip_suffix("/metrics").expect("a path");
    let token = std::fs::read_to_string(sandbox.path("secret")).expect("it was made");
    let refused = get(metrics, "/metrics", None);
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    let awaited = "polestar_trial_goodput_ratio{";
    let shown = loop {
        let shown = get(metrics, "/metrics", Some(token.trim()));
        assert!(shown.starts_with("HTTP/1.1 200"), "{shown}");
        if shown.contains(awaited)
            && shown.contains("polestar_trial_heldout_loss{")
            && shown.contains("polestar_trial_tokens_per_second{")
        {
            break shown;
        }
        std::thread::yield_now();
    };
    let body = shown.split_once("\r\n\r\n").expect("a body").1;
    let mut names = BTreeSet::new();
    for line in body.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        value
            .parse::<f64>()
            .unwrap_or_else(|_| panic!("a number: {line}"));
        names.insert(name.split('{').next().expect("a name").to_owned());
    }
    for name in [
        "polestar_pool_workers",
        "polestar_run_trials",
        "polestar_store_read_bytes_total",
        "polestar_store_retries_total",
        "polestar_trial_accuracy_ratio",
        "polestar_trial_loss",
        "polestar_trial_sent_bytes_total",
        "polestar_trial_step",
        "polestar_trial_step_time_seconds_total",
    ] {
        assert!(names.contains(name), "{name}: {names:?}");
    }
    for part in ["data", "forward", "backward", "reduce", "optimizer", "save"] {
        let of = format!(
            "polestar_trial_step_time_seconds_total{{trial=\"pico-100000steps-s1\",part=\"{part}\"}}"
        );
        assert!(body.contains(&of), "{of}:\n{body}");
    }
    let pid = Pid::from_raw(launch.id() as i32).expect("a process id");
    kill_process(pid, Signal::TERM).expect("it runs");
    for line in lines {
        line.expect("text");
    }
    launch.wait().expect("it was started");
    is_one_trace(&collector.0.lock().expect("no panics"));
}

#[test]
fn a_collector_that_hangs_costs_nothing_but_a_few_seconds_at_the_end() {
    // Connections wait in its queue for ever.
    let hangs = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = hangs.local_addr().expect("an address");
    let sandbox = Sandbox::new();
    sandbox.write(
        "sweep.toml",
        &two_workers(10, &format!("otlp = \"http://{address}\"")),
    );
    let mut command = sandbox.command(&["launch", "sweep.toml"]);
    command.stdout(Stdio::null());
    let began = Instant::now();
    let mut launch = Running::start(command);
    launch.wait_for("done");
    let trained = began.elapsed();
    launch.wait_for_end();
    let ended = began.elapsed() - trained;
    // The workers' end, the coordinator's own, and the report between them.
    assert!(ended < 2 * SHUTDOWN + Duration::from_secs(6), "{ended:?}");
    let result = |sandbox: &Sandbox| {
        json(&sandbox.result("runs", "pico-10steps-s1"))["outcome"]["digest"].clone()
    };

    let without = Sandbox::new();
    without.write("sweep.toml", &two_workers(10, ""));
    without.succeed(&["launch", "sweep.toml"]);
    assert_eq!(result(&sandbox), result(&without));
}
