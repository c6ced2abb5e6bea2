#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/control_site.h"

namespace ramferry {
namespace {

using ::testing::HasSubstr;
using Code = absl::StatusCode;

mode_t ModeOf(const std::string& path) {
  struct stat info = {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 07777u;
}

std::string TextOf(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

class Certificates : public ::testing::Test {
 protected:
  Certificates() { (void)site_.Host("alpha.example"); }

  absl::Status Load(const std::string& ca, const std::string& certificate, const std::string& key) {
    return LoadIdentity(ca, certificate, key).status();
  }
  std::string Complaint(const absl::Status& status) {
    EXPECT_FALSE(status.ok());
    return std::string(status.message());
  }

  Site site_;
  const std::string ca_ = site_.Path("ca.pem");
  const std::string certificate_ = site_.Path("alpha.example.pem");
  const std::string key_ = site_.Path("alpha.example-key.pem");
};

TEST_F(Certificates, keys_are_private_and_certificates_public_whatever_the_umask) {
  const mode_t before = ::umask(0777);
  Site strict;
  (void)CreateHostCertificate({.directory = strict.Path(""), .host = "b"});
  ::umask(before);
  for (const Site* site : {&site_}) {
    EXPECT_EQ(ModeOf(site->Path("ca.pem")), 0644u);
    EXPECT_EQ(ModeOf(site->Path("ca-key.pem")), 0600u);
    EXPECT_EQ(ModeOf(site->Path("alpha.example.pem")), 0644u);
    EXPECT_EQ(ModeOf(site->Path("alpha.example-key.pem")), 0600u);
  }
  EXPECT_EQ(ModeOf(strict.Path("ca.pem")), 0644u);
  EXPECT_EQ(ModeOf(strict.Path("b-key.pem")), 0600u);
}

TEST_F(Certificates, nothing_is_overwritten_unless_asked) {
  const std::string ca = TextOf(ca_);
  const std::string key = TextOf(key_);
  absl::Status status = CreateAuthority({.directory = site_.Path("")});
  EXPECT_EQ(status.code(), Code::kAlreadyExists);
  status = CreateHostCertificate({.directory = site_.Path(""), .host = "alpha.example"});
  EXPECT_EQ(status.code(), Code::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("alpha.example.pem is already there"));
  EXPECT_EQ(TextOf(ca_), ca);
  EXPECT_EQ(TextOf(key_), key);
  EXPECT_TRUE(CreateHostCertificate(
                  {.directory = site_.Path(""), .host = "alpha.example", .overwrite = true})
                  .ok());
  EXPECT_NE(TextOf(key_), key);
  EXPECT_TRUE(Load(ca_, certificate_, key_).ok());
  for (const auto& entry : std::filesystem::directory_iterator(site_.Path(""))) {
    EXPECT_EQ(entry.path().extension(), ".pem") << "left behind: " << entry.path();
  }
}

TEST_F(Certificates, bad_names_and_times_are_refused) {
  for (const char* host :
       {"", "a/b", "../x", "a b", "10.0.0.1", "ca", ".x", "-x", "a,DNS:b", "a..b"}) {
    EXPECT_EQ(CreateHostCertificate({.directory = site_.Path(""), .host = host}).code(),
              Code::kInvalidArgument)
        << host;
  }
  EXPECT_EQ(CreateHostCertificate(
                {.directory = site_.Path(""), .host = "b", .names = {"ok", "x,IP:1.2.3.4"}})
                .code(),
            Code::kInvalidArgument);
  EXPECT_EQ(CreateAuthority({.directory = site_.Path(""), .days = 0, .overwrite = true}).code(),
            Code::kInvalidArgument);
  EXPECT_THAT(Complaint(CreateHostCertificate({.directory = site_.Path("none"), .host = "b"})),
              HasSubstr("make an authority first"));
}

TEST_F(Certificates, missing_files_are_named_with_what_to_do) {
  for (const auto& [ca, certificate, key] :
       {std::tuple(ca_ + "x", certificate_, key_), std::tuple(ca_, certificate_ + "x", key_),
        std::tuple(ca_, certificate_, key_ + "x")}) {
    const absl::Status status = Load(ca, certificate, key);
    EXPECT_EQ(status.code(), Code::kNotFound);
    EXPECT_THAT(std::string(status.message()), HasSubstr("pemx"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("ramferry certs"));
  }
  EXPECT_THAT(Complaint(Load("", certificate_, key_)), HasSubstr("no authority's certificate"));
}

TEST_F(Certificates, a_key_that_others_can_read_is_refused) {
  ASSERT_EQ(::chmod(key_.c_str(), 0644), 0);
  EXPECT_THAT(Complaint(Load(ca_, certificate_, key_)), HasSubstr("chmod 600 " + key_));
  ASSERT_EQ(::chmod(key_.c_str(), 0640), 0);  // for a group of daemons
  EXPECT_TRUE(Load(ca_, certificate_, key_).ok());
}

TEST_F(Certificates, a_key_of_another_certificate_is_refused) {
  (void)site_.Host("beta.example");
  EXPECT_THAT(Complaint(Load(ca_, certificate_, site_.Path("beta.example-key.pem"))),
              HasSubstr("does not belong to the certificate"));
}

TEST_F(Certificates, a_certificate_of_another_authority_is_refused) {
  const Site other;
  EXPECT_THAT(Complaint(Load(other.Path("ca.pem"), certificate_, key_)),
              HasSubstr("does not vouch for the certificate"));
}

TEST_F(Certificates, an_expired_certificate_is_refused) {
  (void)site_.Host("alpha.example", {}, -1);
  EXPECT_THAT(Complaint(Load(ca_, certificate_, key_)), HasSubstr("has expired on"));
}

TEST_F(Certificates, files_of_another_kind_are_refused) {
  EXPECT_THAT(Complaint(Load(ca_, key_, key_)), HasSubstr("holds no PEM certificate"));
  ASSERT_EQ(::chmod(certificate_.c_str(), 0600), 0);
  EXPECT_THAT(Complaint(Load(ca_, certificate_, certificate_)), HasSubstr("no PEM private key"));
  EXPECT_THAT(Complaint(Load(key_, certificate_, key_)), HasSubstr("holds no certificate"));
  EXPECT_THAT(Complaint(Load(ca_, site_.Path(""), key_)), HasSubstr("not a PEM file"));
}

TEST_F(Certificates, the_identity_is_called_by_its_first_dns_name) {
  EXPECT_EQ(site_.Host("alpha.example", {"10.0.0.1", "a.example"}).name, "alpha.example");
}

}  // namespace
}  // namespace ramferry
