// Certificates for the tests of encrypted page channels, made with OpenSSL's command line.
#pragma once

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "transport/tcp/tcp_options.h"

namespace ramferry {

// Two hosts, "one" and "two", of one CA, and a host "stranger" of another.
class TestCertificates {
 public:
  static const TestCertificates& Shared() {
    static const TestCertificates certificates;
    return certificates;
  }

  // Encryption on, as `host`, trusting `ca`.
  [[nodiscard]] TcpOptions Options(const std::string& host, const std::string& ca = "ca") const {
    TcpOptions options;
    options.encryption = true;
    options.ca_file = Path(ca + ".crt");
    options.certificate_file = Path(host + ".crt");
    options.key_file = Path(host + ".key");
    return options;
  }
  [[nodiscard]] std::string Path(const std::string& name) const { return directory_ / name; }

 private:
  TestCertificates() {
    char name[] = "/tmp/ramferry-test-XXXXXX";
    directory_ = ::mkdtemp(name);
    Authority("ca");
    Authority("other-ca");
    Host("one", "ca");
    Host("two", "ca");
    Host("stranger", "other-ca");
  }
  ~TestCertificates() { std::filesystem::remove_all(directory_); }

  void Run(const std::string& arguments) const {
    const std::string command =
        fmt::format("cd {} && openssl {} 2>/dev/null", directory_.string(), arguments);
    if (std::system(command.c_str()) != 0) std::abort();
  }
  void Authority(const std::string& name) const {
    Run(
        fmt::format("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
                    "-subj /CN={0} -keyout {0}.key -out {0}.crt",
                    name));
  }
  void Host(const std::string& name, const std::string& ca) const {
    Run(
        fmt::format("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={0} "
                    "-keyout {0}.key -out {0}.csr",
                    name));
    Run(
        fmt::format("x509 -req -in {0}.csr -CA {1}.crt -CAkey {1}.key -CAcreateserial -days 2 "
                    "-out {0}.crt",
                    name, ca));
  }

  std::filesystem::path directory_;
};

}  // namespace ramferry
