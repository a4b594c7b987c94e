export default {
  en: { "chat.title": "Kimi Gateway", "chat.about": "An endpoint of your own for the Kimi models. Point any OpenAI or Anthropic client at {address}." },
  zh: { "chat.title": "Kimi Gateway", "chat.about": "属于你自己的 Kimi 模型接口。将任意 OpenAI 或 Anthropic 客户端指向 {address} 即可。" },
};
