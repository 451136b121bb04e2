// Configurations of the LVSM family: its keys load, its class name brings its behaviour.

#include <algorithm>

#include <gtest/gtest.h>

#include "tests/launch/config_cases.h"

namespace duoflow::launch {
namespace {

std::string const kReferenceClass = "model.class_name=model.LVSM_flow_match_editor.FlowMatchEditor";

TEST(ConfigFamilyTest, TheReferencesClassNameSetsItsBehaviour) {
  auto const config = parse("", {kReferenceClass});
  EXPECT_EQ(config.model.time_scale, 1.0);
  EXPECT_FALSE(config.model.velocity_head);
  EXPECT_FALSE(config.model.light_in_adaln);
  EXPECT_FALSE(config.model.normalize_latents);
  EXPECT_FALSE(config.training.freeze_reconstructor_renderer);
  EXPECT_EQ(config.model.env_height, 256);
  EXPECT_EQ(config.data.camera_frame, "all");
  EXPECT_EQ(parse("", {kReferenceClass, "data.camera_frame=inputs"}).data.camera_frame, "inputs");
  EXPECT_EQ(parse("").data.camera_frame, "inputs");
  auto const from_before_the_key =
      parse_stored_config("model: {class_name: model.LVSM_flow_match_editor.FlowMatchEditor}", "m", {});
  EXPECT_EQ(from_before_the_key.data.camera_frame, "inputs");
  EXPECT_EQ(values_of(parse(effective_yaml(config))), values_of(config));
}

TEST(ConfigFamilyTest, WrittenKeysWinOverTheReferencesBehaviour) {
  std::string const e = "model.transformer.editor.";
  auto const config =
      parse("", {kReferenceClass, e + "time_scale=1000", e + "velocity_head=true", e + "light_in_adaln=true",
                 e + "normalize_latents=true", "model.transformer.freeze_reconstructor_renderer=true"});
  EXPECT_EQ(config.model.time_scale, 1000.0);
  EXPECT_TRUE(config.model.velocity_head && config.model.light_in_adaln && config.model.normalize_latents);
  EXPECT_TRUE(config.training.freeze_reconstructor_renderer);
  EXPECT_EQ(values_of(parse(effective_yaml(config))), values_of(config));
}

TEST(ConfigFamilyTest, TheReferencesLightMapSizeIsSaidWhenAnotherOneWasWritten) {
  auto const config = parse("model: {env_tokenizer: {image_size: 64}}", {kReferenceClass});
  EXPECT_EQ(config.model.env_height, 256);
  ASSERT_EQ(config.notes.size(), 1u);
  for (std::string const part : {"model.env_tokenizer.image_size = 64", "taken as 256", "FlowMatchEditor"})
    EXPECT_NE(config.notes[0].find(part), std::string::npos) << config.notes[0];
  EXPECT_TRUE(parse("model: {env_tokenizer: {image_size: 256}}", {kReferenceClass}).notes.empty());
  EXPECT_TRUE(parse(effective_yaml(config)).notes.empty());
}

TEST(ConfigFamilyTest, OtherClassesAreErrorsThatListTheKnownOnes) {
  for (std::string const name : {"model.x.FlowMatchEditorOverfit", "model.LVSM_scene_decoder_only.Images2LatentScene"})
    expect_error({name, "model.LVSM_flow_match_editor.FlowMatchEditor"}, "", {"model.class_name=" + name});
}

TEST(ConfigFamilyTest, AnUnknownClassIsSaidBeforeTheKeysThatAreItsOwn) {
  auto const message = error_of(
      "model:\n  class_name: model.LVSM_scene_decoder_only.Images2LatentScene\n  transformer: {n_layer: 24}\n");
  EXPECT_NE(message.find("is not a class"), std::string::npos) << message;
  expect_error({"unknown key", "n_layer"}, "model: {transformer: {n_layer: 24}}", {});
  expect_error({"unknown key", "n_layer"}, "model: {transformer: {n_layer: 24}}", {kReferenceClass});
}

TEST(ConfigFamilyTest, PointLightsAloneAreAnError) {
  for (std::string const alone : {"point_light", "[point_light]"})
    expect_error({"training.relight_signals", "point lights alone", "envmap"},
                 "training: {relight_signals: " + alone + "}");
  for (std::string const maps : {"envmap", "[envmap]", "[point_light, envmap]", "[]"})
    EXPECT_EQ(parse("training: {relight_signals: " + maps + "}").notes.size(), 1u) << maps;
}

TEST(ConfigFamilyTest, EachClassBringsItsEditor) {
  auto const of = [](std::string const& name, std::vector<std::string> overrides = {}) {
    overrides.push_back("model.class_name=model." + name);
    auto const config = parse("", overrides);
    EXPECT_EQ(values_of(parse(effective_yaml(config))), values_of(config));
    return config;
  };
  auto const noise = of("LVSM_flow_match_editor_noise2relit.FlowMatchEditor");
  EXPECT_EQ(noise.model.editor, model::EditorKind::noise_to_relit);
  EXPECT_EQ(noise.model.latent_scale, 0.136);
  EXPECT_EQ(noise.model.time_scale, 1);
  auto const once = of("LVSM_scene_encoder_decoder_wEditor.LatentSceneEditor");
  EXPECT_EQ(once.model.editor, model::EditorKind::one_step);
  EXPECT_EQ(once.flow.velocity_loss_weight, 0);
  EXPECT_EQ(once.flow.num_ode_steps, 1);
  EXPECT_EQ(once.model.editor_init_scale, 0.1);
  std::string const residual = "LVSM_scene_encoder_decoder_wEditor_residual.LatentSceneEditor";
  EXPECT_EQ(of(residual).model.editor, model::EditorKind::one_step);
  auto const head = of(residual, {"model.transformer.editor.use_residual_mode=true"});
  EXPECT_EQ(head.model.editor, model::EditorKind::residual);
  EXPECT_EQ(head.model.editor_init_scale, 0.01);
  EXPECT_EQ(head.model.residual_scale, 0.05);
  EXPECT_EQ(parse("", {"model.transformer.editor.kind=residual"}).model.residual_scale, 1);
  std::string const stored = "model: {class_name: model." + residual + ", transformer: {editor: {kind: residual}}}";
  EXPECT_EQ(parse_stored_config(stored, "manifest.json", {}).model.residual_scale, 1);  // of before the key
  EXPECT_EQ(of("LVSM_scene_encoder_decoder.Images2LatentScene").objective, "reconstruction");
}

TEST(ConfigFamilyTest, ItsNoiseScaleIsItsOwnPath) {
  auto const noisy = parse("training: {flow_match: {noise_scale: 0.05}}", {kReferenceClass});
  EXPECT_EQ(noisy.flow.path, "noisy_linear");
  EXPECT_EQ(noisy.flow.path_sigma, 0.05);
  expect_error({"path_sigma = 0.05", "bridge_sqrt"},
               "training: {flow_match: {noise_scale: 0.05}}");  // no class: say which
  auto const unread = parse("training: {flow_match: {noise_scale: 0.05}}", {"model.class_name=model.LVSM_flow_match_editor_noise2relit.FlowMatchEditor"});
  EXPECT_EQ(unread.flow.path, "linear");
  EXPECT_EQ(unread.flow.path_sigma, 0);
  expect_note(unread, "noise_scale = 0.05 is not used");
}

TEST(ConfigFamilyTest, AnEditorThatKnowsNoTimeEditsInOneStep) {
  std::string const once = "model.transformer.editor.kind=one_step";
  EXPECT_EQ(parse("", {once}).flow.num_ode_steps, 1);
  expect_error({"num_ode_steps = 4", "1 with an editor"}, "", {once, kFlow + "num_ode_steps=4"});
  expect_error({"ode_solver = heun", "euler with an editor"}, "", {once, kFlow + "ode_solver=heun"});
  auto const of_family = parse("training: {flow_match: {inference_method: heun, inference_steps: 4}}",
                               {"model.class_name=model.LVSM_scene_encoder_decoder_wEditor.LatentSceneEditor"});
  EXPECT_EQ(of_family.flow.ode_solver, "euler");
  EXPECT_EQ(of_family.flow.num_ode_steps, 1);
  expect_note(of_family, "ode_solver = heun is taken as euler");
  expect_note(of_family, "num_ode_steps = 4 is taken as 1");
  auto const begun_before = parse_stored_config("model: {transformer: {editor: {kind: one_step, flow_matching: {ode_solver: heun}}}}", "manifest.json", {});
  EXPECT_EQ(begun_before.flow.ode_solver, "euler");
  expect_error({"model.transformer.editor.kind = two_step", "one_step"}, "",
               {"model.transformer.editor.kind=two_step"});
  expect_error({"latent_scale"}, "", {"model.transformer.editor.latent_scale=0"});
  expect_error({"residual_scale"}, "", {"model.transformer.editor.residual_scale=0"});
}

TEST(ConfigFamilyTest, ReconOnlyIsTheObjectiveReconstruction) {
  EXPECT_EQ(parse("training: {recon_only: true}").objective, "reconstruction");
  EXPECT_EQ(parse("training: {recon_only: false}").objective, "joint");
}

TEST(ConfigFamilyTest, ADecoderHeadOtherThanThePlainOneIsAnError) {
  EXPECT_EQ(parse("model: {decoder_head: {type: mlp, mlp: {use_sigmoid: true}}}").notes.size(), 2u);
  expect_error({"model.decoder_head.type = dpt", "mlp"}, "model: {decoder_head: {type: dpt}}");
}

TEST(ConfigFamilyTest, SkippingTheRendererIsARenderLossOfWeightZero) {
  EXPECT_EQ(parse("training: {skip_renderer: true}").flow.render_loss_weight, 0);
  EXPECT_EQ(parse("training: {skip_renderer: false}").flow.render_loss_weight, 1);
  expect_error({"training.skip_renderer", "contradicts", "render_loss_weight = 2"}, "",
               {"training.skip_renderer=true", kFlow + "render_loss_weight=2"});
}

// All keys of the LVSM family's flow-editor YAML (values of the archived two-loss run; the paths are made up).
char const* const kLvsmYaml = R"(
model:
  class_name: model.LVSM_flow_match_editor.FlowMatchEditor
  image_tokenizer: {image_size: 256, patch_size: 8, in_channels: 9}
  target_pose_tokenizer: {image_size: 256, patch_size: 8, in_channels: 6}
  env_tokenizer: {image_size: 256, patch_size: 8, in_channels: 9}
  transformer:
    d: 768
    d_head: 64
    encoder_n_layer: 12
    decoder_n_layer: 12
    special_init: true
    depth_init: true
    use_qk_norm: true
    n_latent_vectors: 3072
    editor: {n_layer: 12, init_scale: 0.02, init_from_decoder: false}
    freeze_reconstructor_renderer: true
training:
  amp_dtype: bf16
  api_key_path: ./configs/keys.yaml
  batch_size_per_gpu: 4
  beta1: 0.9
  beta2: 0.95
  allowed_gradnorm_factor: 200
  center_crop: true
  scene_scale_factor: 1.35
  LVSM_checkpoint_dir: weights.safetensors
  single_step_editor_checkpoint: ''
  checkpoint_dir: ./out
  checkpoint_every: 1000
  dataset_name: data.scenes.Dataset
  dataset_path: ./full_list.txt
  grad_accum_steps: 1
  grad_checkpoint_every: 1
  grad_clip_norm: 5.0
  l2_loss_weight: 1.0
  lpips_loss_weight: 0.0
  perceptual_loss_weight: 0.0
  flow_loss_weight: 1.0
  reset_training_state: true
  lr: 0.0001
  train_steps: 100000
  num_input_views: 4
  num_target_views: 8
  num_threads: 8
  num_views: 12
  num_workers: 4
  prefetch_factor: 8
  print_every: 20
  square_crop: true
  target_has_input: true
  use_amp: true
  use_rel_pose: true
  use_tf32: true
  view_selector: {max_frame_dist: 192, min_frame_dist: 25}
  vis_every: 1000
  wandb_exp_name: run
  wandb_log_every: 10
  wandb_project: LVSM
  warmup: 3000
  weight_decay: 0.05
  flow_match: {train_timestep: uniform, inference_steps: 8, inference_method: heun, noise_scale: 0.0}
  skip_renderer: false
inference:
  if_inference: false
  compute_metrics: true
  view_idx_file_path: ./views.json
  render_video: false
  render_video_config: {traj_type: interpolate, num_frames: 60, loop_video: true, order_poses: false}
)";

TEST(ConfigFamilyTest, TheLvsmFamilysYamlLoadsWithOneNotePerUnusedKey) {
  auto const config = parse(kLvsmYaml);
  std::vector<std::string> const unused = {"model.image_tokenizer.in_channels",
                                           "model.target_pose_tokenizer.patch_size",
                                           "model.target_pose_tokenizer.in_channels",
                                           "model.env_tokenizer.patch_size",
                                           "model.env_tokenizer.in_channels",
                                           "model.transformer.editor.init_from_decoder",
                                           "training.api_key_path",
                                           "training.center_crop",
                                           "training.scene_scale_factor",
                                           "training.single_step_editor_checkpoint",
                                           "training.checkpoint_dir",
                                           "training.dataset_name",
                                           "training.dataset_path",
                                           "training.reset_training_state",
                                           "training.num_threads",
                                           "training.num_views",
                                           "training.num_workers",
                                           "training.prefetch_factor",
                                           "training.square_crop",
                                           "training.use_rel_pose",
                                           "training.use_tf32",
                                           "training.view_selector.max_frame_dist",
                                           "training.view_selector.min_frame_dist",
                                           "training.wandb_exp_name",
                                           "training.wandb_log_every",
                                           "training.wandb_project",
                                           "training.flow_match.train_timestep",
                                           "training.skip_renderer",
                                           "inference.if_inference",
                                           "inference.compute_metrics",
                                           "inference.view_idx_file_path",
                                           "inference.render_video",
                                           "inference.render_video_config.traj_type",
                                           "inference.render_video_config.num_frames",
                                           "inference.render_video_config.loop_video",
                                           "inference.render_video_config.order_poses"};
  EXPECT_EQ(config.notes.size(), unused.size() + 1);
  EXPECT_EQ(std::count_if(config.notes.begin(), config.notes.end(),
                          [](auto const& note) { return note.find("editor.init_scale has no effect") != note.npos; }),
            1);
  for (auto const& key : unused)
    EXPECT_EQ(std::count_if(config.notes.begin(), config.notes.end(),
                            [&](auto const& note) { return note.find(" " + key + " is not used") != note.npos; }),
              1)
        << key;
  EXPECT_EQ(config.training.batch_size_per_gpu, 4);
  EXPECT_EQ(config.training.lr, 1e-4);
  EXPECT_EQ(config.training.init_from, "weights.safetensors");
  EXPECT_EQ(config.flow.velocity_loss_weight, 1.0);
  EXPECT_EQ(config.flow.ode_solver, "heun");
  EXPECT_EQ(config.flow.num_ode_steps, 8);
  EXPECT_EQ(config.flow.path, "linear");
  EXPECT_TRUE(config.training.freeze_reconstructor_renderer);
  EXPECT_EQ(config.model.recompute_every, 1);
  EXPECT_EQ(config.model.compute, model::ComputeType::bf16);
}

TEST(ConfigFamilyTest, KeysThatTheFamilysCodeReadsBesideThatYamlAreKnown) {
  std::string yaml = "training:\n";
  std::vector<std::string> const keys = {"single_env_map",
                                         "single_point_light",
                                         "relight_signals",
                                         "point_light_tokenizer",
                                         "point_light_num_rays",
                                         "fixed_t",
                                         "noise_seed",
                                         "training_mode",
                                         "single_step_inference",
                                         "compute_hungarian_loss",
                                         "resume_ckpt",
                                         "log_grad_norm_details",
                                         "single_view_input_mode",
                                         "load_all_max_target_views",
                                         "context_dataset_path",
                                         "cross_split_relight",
                                         "cross_split_context_env_mode",
                                         "cross_split_envmap_h",
                                         "cross_split_envmap_w",
                                         "cross_split_fix_envmap_size",
                                         "editor_condition_source",
                                         "point_light_plucker_method",
                                         "load_all_frames",
                                         "dynamic_input_view_num",
                                         "whiteEnvInput",
                                         "condition_reverse",
                                         "use_relit_images",
                                         "use_albedos",
                                         "extra_dataset_paths"};
  for (auto const& key : keys) yaml += "  " + key + ": 1\n";
  yaml +=
      "  multi_edit: {steps: 2}\n  scheduler_type: cosine\n  seed: 3\nmodel: {transformer: {decoder_head: {kind: "
      "dpt}}}\n";
  yaml += "dpt_transfer: {from: x}\nloss: {fidelity_weight: 1}\n";
  EXPECT_EQ(parse(yaml).notes.size(), keys.size() + 4);
}

TEST(ConfigFamilyTest, TheWeightsOfItsImageTermsAreTaken) {
  auto const config = parse("training: {l2_loss_weight: 1.0, perceptual_loss_weight: 0.5, lpips_loss_weight: 1}");
  EXPECT_EQ(config.training.perceptual_loss_weight, 0.5);
  EXPECT_EQ(config.training.lpips_loss_weight, 1);
  EXPECT_TRUE(config.notes.empty());
}

TEST(ConfigFamilyTest, TheDocumentedFlowMatchingKeysLoad) {
  auto const config = parse(R"(
model: {transformer: {editor: {use_flow_matching: true, flow_matching: {num_ode_steps: 4, ode_solver: euler, time_embed_dim: 768, use_ada_ln: true,
  velocity_loss_weight: 1.0, render_loss_weight: 1.0, normalize_losses: true, time_sampling: uniform}}}}
)");
  EXPECT_EQ(config.flow.weighting, "normalized");
  EXPECT_EQ(config.notes.size(), 3u);
}

}  // namespace
}  // namespace duoflow::launch
