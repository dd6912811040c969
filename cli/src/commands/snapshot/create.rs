//! `windlass snapshot create`

use std::sync::Arc;

use windlass_core::backend::{Backend, Job, PlannedAction};
use windlass_core::config::{Reason, Selection, parse_duration};
use windlass_core::context::{Context, ContextPath};
use windlass_core::output::{Destination, Output as BuildOutput, OutputKind};
use windlass_core::pipeline::{Pipeline, PipelineOptions, Reuse};
use windlass_core::platform::Platform;
use windlass_core::reference::Reference;
use windlass_core::request::{BuildRequest, DockerfileSource};
use windlass_core::{Error, ErrorKind, Result};
use windlass_image_builder::TYPE;
use windlass_image_builder::together::{
    AskedArchitecture, CreatedSnapshot, Creation, ImageKeeper, KEY_VARIABLE, Management, SnapshotOrder, Way,
    local_platform, planned,
};

use super::engine::InEngine;
use super::management;
use crate::args::{CreateArgs, Format};
use crate::commands::backends::{choose, create};
use crate::commands::build::limit;
use crate::commands::plan;
use crate::request::{build_args, pairs, tree_by};
use crate::session::{Program, Session};
use crate::settings::source_date_epoch;

pub(super) async fn run(args: &CreateArgs, program: &Program) -> Result<()> {
    let session = program.session(args.context.as_deref())?;
    session.output.refuse_paths()?;
    let limit = limit(args.timeout.as_deref(), &session)?;
    let mut order = order(args)?;
    if let Some(image) = &args.built {
        order.architecture = asked(args, true, &session)?;
        return of_built(&image.parse()?, &order, args, &session).await;
    }
    let builder = Builder::choose(args, &session)?;
    let management = management(builder.selection.backends.first(), &session)?;
    order.architecture = asked(args, builder.is_service, &session)?;
    let request = builder.request(args, &order, &management, &session).await?;
    let way = if builder.is_service { Way::Service } else { Way::Local };
    let pipeline =
        Pipeline::new(session.program.registry.clone(), builder.backends.clone(), session.host.clone())?;
    if args.dry_run {
        return show_plan(request, &way, &order, &pipeline, &builder.selection, &management, &session, limit)
            .await;
    }
    session.output.note(&format!("built by {} ({})", builder.names(), builder.selection.reason));
    let keeper = builder.keeper(&session)?;
    let created = session
        .work(limit, async |job: &Job| {
            let host = &session.host;
            let creation = Creation { management: &management, host, order: &order, job };
            match way {
                Way::Local => {
                    let keeper = keeper.as_ref().map(|keeper| keeper as &dyn ImageKeeper);
                    creation.locally(&builder.backends, &pipeline, keeper, request).await
                }
                _ => creation.by_service(&pipeline, request).await,
            }
        })
        .await?;
    show(&created, args, &session)
}

/// Who builds, and whether that is the service.
struct Builder {
    selection: Selection,
    backends: Vec<Arc<dyn Backend>>,
    is_service: bool,
}

impl Builder {
    /// Snapshots are made by the service, unless the user names a backend of this machine: an offer of the
    /// surroundings, or what is used where nothing is said, says nothing about snapshots. A public image is
    /// always the service's to take over.
    fn choose(args: &CreateArgs, session: &Session<'_>) -> Result<Self> {
        let service = [TYPE.to_owned()];
        let mut selection = match (args.backends.is_empty(), args.image.is_some()) {
            (false, _) => choose(&args.backends, session)?,
            (true, true) => by_default(choose(&service, session)?),
            (true, false) => match choose(&[], session)? {
                Selection { reason: Reason::Offered { .. } | Reason::Embedded, .. } => {
                    by_default(choose(&service, session)?)
                }
                chosen => chosen,
            },
        };
        let is_service = selection.backends[0].type_name == TYPE;
        for chosen in &mut selection.backends {
            match (is_service, chosen.type_name == TYPE) {
                (true, true) => {
                    if let Some(key) = &args.cache_key {
                        chosen.options =
                            chosen.options.clone().with("cache-key", key.as_str(), "--cache-key");
                    }
                    if args.no_nydus {
                        chosen.options = chosen.options.clone().with("nydus", false, "--no-nydus");
                    }
                }
                (false, false) => {}
                _ => return Err(mixed()),
            }
        }
        let backends: Vec<Arc<dyn Backend>> =
            selection.backends.iter().map(|chosen| create(chosen, session)).collect::<Result<_>>()?;
        if !is_service {
            if args.image.is_some() {
                return Err(Error::new(ErrorKind::InvalidInput, "`--image` is always built by the service")
                    .with_hint(format!("leave `--backend` out, or say `--backend {TYPE}`")));
            }
            if let Some(other) = backends.iter().find(|backend| backend.remote().is_some()) {
                return Err(elsewhere(other.as_ref(), &selection.reason));
            }
            for (given, option) in [(args.cache_key.is_some(), "--cache-key"), (args.no_nydus, "--no-nydus")]
            {
                if given {
                    session.output.warn(&format!("`{option}` changes nothing: the image is built here"));
                }
            }
        }
        Ok(Self { selection, backends, is_service })
    }

    fn names(&self) -> String {
        self.selection.backends.iter().map(|chosen| chosen.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Where an image of this machine is kept on its way.
    fn keeper(&self, session: &Session<'_>) -> Result<Option<InEngine>> {
        let keepers = self.selection.backends.iter().map(|chosen| InEngine::of(chosen, session));
        let mut keepers = keepers.collect::<Result<Vec<_>>>()?;
        if keepers.iter().any(Option::is_some) && keepers.len() > 1 {
            let message = "the backend `docker` stands alone here: its image comes out of the engine";
            return Err(
                Error::new(ErrorKind::InvalidInput, message).with_hint("name one backend: `--backend`")
            );
        }
        Ok(keepers.pop().flatten())
    }

    /// What is built.
    async fn request(
        &self,
        args: &CreateArgs,
        order: &SnapshotOrder,
        management: &Management,
        session: &Session<'_>,
    ) -> Result<BuildRequest> {
        let request = match (&args.context, &args.image) {
            (Some(context), _) => {
                let surroundings = &session.program.surroundings;
                let (context, dockerfile) =
                    tree_by("--dockerfile", context, args.dockerfile.as_deref(), session).await?;
                BuildRequest {
                    build_args: build_args(&args.build_args, &surroundings.environment)?,
                    source_date_epoch: source_date_epoch(surroundings.variable("SOURCE_DATE_EPOCH"))?,
                    ..BuildRequest::new(context, dockerfile)
                }
            }
            (None, image) => of_image(image.as_deref().unwrap_or_default(), order)?,
        };
        if self.is_service {
            return Ok(request);
        }
        let asked = order.architecture.map(|asked| asked.architecture.platform());
        let platform = asked.unwrap_or_else(|| local_platform(management, &Platform::host()));
        Ok(BuildRequest { platforms: vec![platform], ..request })
    }
}

/// The reason of a choice that nobody made.
fn by_default(selection: Selection) -> Selection {
    Selection { reason: Reason::Offered { variables: &[KEY_VARIABLE] }, ..selection }
}

fn mixed() -> Error {
    let message = format!("the backend `{TYPE}` and one of this machine cannot stand in for each other here");
    Error::new(ErrorKind::InvalidInput, message).with_hint("name one: `--backend`")
}

fn elsewhere(backend: &dyn Backend, reason: &Reason) -> Error {
    let message = format!("what the backend `{}` builds is not in Together's registry", backend.name());
    Error::new(ErrorKind::Unsupported, message)
        .with_detail("chosen by", reason.to_string())
        .with_hint(format!("build with `--backend {TYPE}`, or here: `--backend docker`, `--backend oci`"))
}

/// A public image as a build: one line in an otherwise empty context.
fn of_image(image: &str, order: &SnapshotOrder) -> Result<BuildRequest> {
    // It becomes a line of a Dockerfile: only a reference may.
    let _: Reference = image.parse()?;
    let platform = order.architecture.filter(|asked| asked.by == "--platform");
    let platform =
        platform.map_or_else(String::new, |asked| format!("--platform={} ", asked.architecture.platform()));
    let line = format!("FROM {platform}{image}\n");
    let mut context = Context::empty();
    let path = ContextPath::from_clean("Dockerfile");
    context.insert(path.clone(), line.clone(), 0o644);
    let dockerfile = DockerfileSource {
        shown: "Dockerfile".into(),
        path: None,
        in_context: Some(path),
        content: line.into(),
    };
    Ok(BuildRequest::new(context, dockerfile))
}

/// What the image must run on, where somebody says so. The variable speaks of what the service builds.
fn asked(args: &CreateArgs, is_service: bool, session: &Session<'_>) -> Result<Option<AskedArchitecture>> {
    match &args.platform {
        Some(platform) => AskedArchitecture::of_platform(platform).map(Some),
        None if is_service => AskedArchitecture::of_environment(&session.host),
        None => Ok(None),
    }
}

fn order(args: &CreateArgs) -> Result<SnapshotOrder> {
    let order = SnapshotOrder {
        aliases: args.aliases.clone(),
        ttl_seconds: args.ttl.as_deref().map(ttl).transpose()?,
        tags: pairs("--tag", &args.tags, None)?,
        architecture: None,
    };
    order.check().map(|()| order)
}

/// Whole seconds, at least one.
fn ttl(text: &str) -> Result<u64> {
    match parse_duration(text) {
        Some(span) if span.as_secs() >= 1 && span.subsec_nanos() == 0 => Ok(span.as_secs()),
        _ => Err(Error::new(ErrorKind::InvalidInput, format!("invalid `--ttl {text}`"))
            .with_hint("it is whole seconds, at least 1, or a time span such as `24h`")),
    }
}

/// A snapshot of what is in the registry already.
async fn of_built(
    image: &Reference,
    order: &SnapshotOrder,
    args: &CreateArgs,
    session: &Session<'_>,
) -> Result<()> {
    let management = management(None, session)?;
    if args.dry_run {
        let [_, actions] = planned(&management, order, &Way::Built(image.clone()));
        return match session.output.format {
            Format::Json => session.output.json(&actions),
            Format::Text | Format::Paths => session.output.result(&plan::actions(&actions)),
        };
    }
    let limit = limit(args.timeout.as_deref(), session)?;
    let created = session
        .work(limit, async |job: &Job| {
            let creation = Creation { management: &management, host: &session.host, order, job };
            creation.of_image(image, args.force).await
        })
        .await?;
    show(&created, args, session)
}

fn show(created: &CreatedSnapshot, args: &CreateArgs, session: &Session<'_>) -> Result<()> {
    let id = &created.snapshot.id;
    // It exists: whoever cannot read stdout must still learn what it is called.
    let and_name_it = |error: Error| error.with_detail("snapshot id", id);
    if session.output.format == Format::Json && !args.ci {
        return session.output.json(created).map_err(and_name_it);
    }
    let aliases: String = created.aliases.iter().map(|alias| format!(", @{alias}")).collect();
    session.output.note(&format!("made of {} ({}){aliases}", created.image, created.architecture));
    session.output.result(&format!("{id}\n")).map_err(and_name_it)
}

#[expect(clippy::too_many_arguments, reason = "each is a part of the plan that is shown")]
async fn show_plan(
    request: BuildRequest,
    way: &Way,
    order: &SnapshotOrder,
    pipeline: &Pipeline,
    selection: &Selection,
    management: &Management,
    session: &Session<'_>,
    limit: Option<std::time::Duration>,
) -> Result<()> {
    let tags = vec!["image-<uuid>:<uuid>".replace("<uuid>", "00000000-0000-4000-8000-000000000000").parse()?];
    let mut request = BuildRequest { tags, ..request };
    if *way == Way::Local {
        let loads = selection.backends[0].type_name == windlass_docker::TYPE;
        let destination = (!loads).then(|| Destination::Path("image.tar".into()));
        request.outputs = vec![BuildOutput { kind: OutputKind::Docker, destination, attributes: [].into() }];
    }
    let options = PipelineOptions { reuse: Reuse::Never, explain: false };
    let mut plan = session.work(limit, async |job| pipeline.plan(request, &options, job).await).await?;
    let [before, after]: [Vec<PlannedAction>; 2] = planned(management, order, way);
    plan.actions = before.into_iter().chain(plan.actions).chain(after).collect();
    plan::show(&plan, selection, &session.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_whole_seconds() {
        for (text, seconds) in [("1", 1), ("86400", 86_400), ("24h", 86_400), ("1h30m", 5_400)] {
            assert_eq!(ttl(text).expect(text), seconds);
        }
        for text in ["0", "-1", "1.5", "0.5s", "soon", ""] {
            assert_eq!(ttl(text).expect_err(text).kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn only_a_reference_becomes_a_line() {
        let order = SnapshotOrder::default();
        let line = |image: &str, order: &SnapshotOrder| {
            String::from_utf8(of_image(image, order)?.dockerfile.content.to_vec()).map_err(|_| mixed())
        };
        assert_eq!(line("node:22", &order).expect("valid"), "FROM node:22\n");
        let asked = AskedArchitecture::of_platform("linux/arm64").expect("known");
        let order = SnapshotOrder { architecture: Some(asked), ..order };
        assert_eq!(line("node:22", &order).expect("valid"), "FROM --platform=linux/arm64 node:22\n");
        for image in ["", "node:22\nRUN x", "node AS a", "$X"] {
            assert!(line(image, &order).is_err(), "{image}");
        }
    }
}
