// An exported network in a C++ service: ONNX Runtime's C++ API, and nothing else.
//
//   g++ -std=c++17 serve.cpp -I ORT/include -L ORT/lib -lonnxruntime -o serve
//   ./serve NETWORK.onnx CLIPS.raw N THRESHOLD
//
// NETWORK.onnx has its selection network inside (tools/export.py); CLIPS.raw holds N clips of its
// shape, float32 [N, C, T, H, W], normalised as its description says.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 5) return std::cerr << "serve NETWORK.onnx CLIPS.raw N THRESHOLD\n", 2;
  Ort::Env env;
  Ort::Session session(env, argv[1], Ort::SessionOptions{});
  Ort::AllocatorWithDefaultOptions allocator;
  auto about = session.GetModelMetadata().LookupCustomMetadataMapAllocated("ada3d_fx", allocator);
  std::cerr << about.get() << "\n";  // classes, preprocessing, prices and more, as JSON

  auto shape = [&](size_t i) { return session.GetInputTypeInfo(i).GetTensorTypeAndShapeInfo().GetShape(); };
  std::vector<int64_t> clips_shape = shape(0), none_t = {0, shape(1)[1]}, none_k = {0, shape(2)[1]};
  clips_shape[0] = std::stoll(argv[3]);
  size_t count = 1;
  for (int64_t size : clips_shape) count *= size;
  std::vector<float> clips(count);
  std::ifstream(argv[2], std::ios::binary).read(reinterpret_cast<char*>(clips.data()), 4 * count);

  float threshold = std::stof(argv[4]);
  bool score = true, nothing = false;  // false: decide only; no policy is given, so each clip decides
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<Ort::Value> inputs;
  inputs.push_back(Ort::Value::CreateTensor<float>(memory, clips.data(), count, clips_shape.data(), 5));
  inputs.push_back(Ort::Value::CreateTensor<bool>(memory, &nothing, 0, none_t.data(), 2));
  inputs.push_back(Ort::Value::CreateTensor<bool>(memory, &nothing, 0, none_k.data(), 2));
  inputs.push_back(Ort::Value::CreateTensor<float>(memory, &threshold, 1, nullptr, 0));
  inputs.push_back(Ort::Value::CreateTensor<bool>(memory, &score, 1, nullptr, 0));
  const char* in[] = {"clips", "frames", "stages", "threshold", "score"};
  const char* out[] = {"scores", "chosen_frames", "chosen_stages"};
  auto results = session.Run(Ort::RunOptions{nullptr}, in, inputs.data(), 5, out, 3);

  const int64_t classes = results[0].GetTensorTypeAndShapeInfo().GetShape()[1];
  for (int64_t i = 0; i < clips_shape[0]; i++) {
    const float* scores = results[0].GetTensorData<float>() + i * classes;
    const float* best = std::max_element(scores, scores + classes);
    std::cout << best - scores << " " << *best;
    for (int part : {1, 2}) {
      const int64_t bits = results[part].GetTensorTypeAndShapeInfo().GetShape()[1];
      std::cout << " ";
      for (int64_t b = 0; b < bits; b++) std::cout << results[part].GetTensorData<bool>()[i * bits + b];
    }
    std::cout << "\n";
  }
}
