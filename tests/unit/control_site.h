// For tests of the control channel: a site with an authority and hosts, and a service of lambdas.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "transport/control/certificates.h"
#include "transport/control/client.h"
#include "transport/control/server.h"

namespace ramferry {

// A directory of its own with ca.pem; removed at the end.
class Site {
 public:
  Site() {
    std::string path = (std::filesystem::temp_directory_path() / "ramferry-certs-XXXXXX").string();
    if (::mkdtemp(path.data()) == nullptr) std::abort();
    directory_ = path;
    const absl::Status status = CreateAuthority({.directory = path, .name = "test authority"});
    EXPECT_TRUE(status.ok()) << status;
  }
  Site(const Site&) = delete;
  Site& operator=(const Site&) = delete;
  ~Site() { std::filesystem::remove_all(directory_); }

  [[nodiscard]] std::string Path(const std::string& file) const { return directory_ + "/" + file; }

  // An identity of this site; `days` < 0: one that has expired (which LoadIdentity would refuse).
  [[nodiscard]] Identity Host(const std::string& host, std::vector<std::string> names = {},
                              int days = 10) const {
    const absl::Status made = CreateHostCertificate({.directory = directory_,
                                                     .host = host,
                                                     .names = std::move(names),
                                                     .days = 10,
                                                     .overwrite = true});
    EXPECT_TRUE(made.ok()) << made;
    auto identity = LoadIdentity(Path("ca.pem"), Path(host + ".pem"), Path(host + "-key.pem"));
    EXPECT_TRUE(identity.ok()) << identity.status();
    if (!identity.ok() || days > 0) return identity.value_or(Identity());
    EXPECT_TRUE(CreateHostCertificate({.directory = directory_,
                                       .host = host,
                                       .names = {"localhost", "127.0.0.1"},
                                       .days = days,
                                       .overwrite = true})
                    .ok());
    Identity expired = *identity;
    expired.certificate_pem = Read(Path(host + ".pem"));
    expired.key_pem = Read(Path(host + "-key.pem"));
    return expired;
  }
  // A destination on loopback, by all its names.
  [[nodiscard]] Identity Destination() const {
    return Host("beta.example", {"localhost", "127.0.0.1", "::1"});
  }

 private:
  static std::string Read(const std::string& path) {
    std::string text(std::filesystem::file_size(path), '\0');
    std::FILE* file = std::fopen(path.c_str(), "rb");
    EXPECT_EQ(std::fread(text.data(), 1, text.size(), file), text.size());
    std::fclose(file);
    return text;
  }
  std::string directory_;
};

struct LambdaService : ControlService {
  std::function<void(ControlChannel&)> serve = [](ControlChannel&) {};
  std::function<absl::StatusOr<Verdict>(const std::string&, const std::string&)> settle =
      [](const std::string&, const std::string&) { return Verdict::kUnknown; };
  std::function<absl::Status(const std::string&, const std::string&)> confirm =
      [](const std::string&, const std::string&) { return absl::OkStatus(); };

  void Serve(ControlChannel& channel) override { serve(channel); }
  absl::StatusOr<Verdict> Settle(const std::string& id, const std::string& peer) override {
    return settle(id, peer);
  }
  absl::Status Confirm(const std::string& id, const std::string& peer) override {
    return confirm(id, peer);
  }
};

inline std::unique_ptr<ControlServer> StartServer(const ControlServerOptions& options,
                                                  ControlService& service) {
  auto server = ControlServer::Start(options, service);
  EXPECT_TRUE(server.ok()) << server.status();
  return server.ok() ? *std::move(server) : nullptr;
}

}  // namespace ramferry
